#include "server/index/codes/residual_kernels.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/index/codes/residual_kernels.cc"
#include "hwy/foreach_target.h"
// Highway must come after foreach_target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// kBytes: how many bytes are unpacked together at most.
template <size_t kBytes>
class Scorer {
 public:
  using D16 = hn::CappedTag<int16_t, kBytes>;
  using D8 = hn::Rebind<uint8_t, D16>;
  using D32 = hn::RepartitionToWide<D16>;
  using V16 = hn::VFromD<D16>;
  using V32 = hn::VFromD<D32>;

#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  // Several rows in one vector: each 128-bit block of products belongs to one row.
  static void ScoreTogether(const uint8_t* codes, size_t rows, size_t quarter,
                            const int16_t* HWY_RESTRICT q, int32_t* HWY_RESTRICT sums) {
    const D16 d16;
    const D32 d32;
    const size_t lanes = hn::Lanes(d16), together = lanes / quarter;
    HWY_ALIGN int16_t repeated[4 * kBytes];
    for (size_t field = 0; field < 4; ++field) {
      for (size_t i = 0; i < lanes; i += quarter) {
        std::memcpy(repeated + field * lanes + i, q + field * quarter, quarter * sizeof(int16_t));
      }
    }
    const V16 q0 = hn::Load(d16, repeated), q1 = hn::Load(d16, repeated + lanes);
    const V16 q2 = hn::Load(d16, repeated + 2 * lanes), q3 = hn::Load(d16, repeated + 3 * lanes);
    const size_t blocks = quarter / 8;  // of a row
    HWY_ALIGN int32_t stored[kBytes / 2];
    size_t row = 0;
    for (; row + together <= rows; row += together) {
      V32 sum = hn::Zero(d32), other = hn::Zero(d32);
      Accumulate(hn::PromoteTo(d16, hn::LoadU(D8(), codes + row * quarter)), q0, q1, q2, q3, sum,
                 other);
      sum = hn::Add(sum, hn::Shuffle1032(sum));
      sum = hn::Add(sum, hn::Shuffle2301(sum));
      hn::Store(sum, d32, stored);
      for (size_t r = 0; r < together; ++r) {
        int32_t total = 0;
        for (size_t b = 0; b < blocks; ++b) total += stored[4 * (r * blocks + b)];
        sums[row + r] = total;
      }
    }
    if (row < rows) ScoreApart(codes + row * quarter, rows - row, quarter, q, sums + row);
  }
#endif

  static void ScoreApart(const uint8_t* codes, size_t rows, size_t quarter,
                         const int16_t* HWY_RESTRICT q, int32_t* HWY_RESTRICT sums) {
    using Row16 = hn::CappedTag<int16_t, 8>;  // divides every quarter
    const Row16 d16;
    const hn::Rebind<uint8_t, Row16> d8;
    const hn::RepartitionToWide<Row16> d32;
    for (size_t row = 0; row < rows; ++row) {
      auto sum = hn::Zero(d32), other = hn::Zero(d32);
      for (size_t i = 0; i < quarter; i += hn::Lanes(d16)) {
        Accumulate(hn::PromoteTo(d16, hn::LoadU(d8, codes + row * quarter + i)),
                   hn::LoadU(d16, q + i), hn::LoadU(d16, q + quarter + i),
                   hn::LoadU(d16, q + 2 * quarter + i), hn::LoadU(d16, q + 3 * quarter + i), sum,
                   other);
      }
      sums[row] = hn::GetLane(hn::SumOfLanes(d32, hn::Add(sum, other)));
    }
  }

  // Whole vectors of one row after the other.
  static void ScoreWide(const uint8_t* codes, size_t rows, size_t quarter,
                        const int16_t* HWY_RESTRICT q, int32_t* HWY_RESTRICT sums) {
    const D16 d16;
    const D32 d32;
    for (size_t row = 0; row < rows; ++row) {
      V32 sum = hn::Zero(d32), other = hn::Zero(d32);
      for (size_t i = 0; i < quarter; i += hn::Lanes(d16)) {
        Accumulate(hn::PromoteTo(d16, hn::LoadU(D8(), codes + row * quarter + i)),
                   hn::LoadU(d16, q + i), hn::LoadU(d16, q + quarter + i),
                   hn::LoadU(d16, q + 2 * quarter + i), hn::LoadU(d16, q + 3 * quarter + i), sum,
                   other);
      }
      sums[row] = hn::GetLane(hn::SumOfLanes(d32, hn::Add(sum, other)));
    }
  }

 private:
  template <class A, class B>
  static HWY_INLINE void Accumulate(A packed, A q0, A q1, A q2, A q3, B& sum, B& other) {
    const hn::DFromV<A> d16;
    const hn::DFromV<B> d32;
    const A mask = hn::Set(d16, int16_t{3});
    sum = hn::ReorderWidenMulAccumulate(d32, hn::And(packed, mask), q0, sum, other);
    sum = hn::ReorderWidenMulAccumulate(d32, hn::And(hn::ShiftRight<2>(packed), mask), q1, sum,
                                        other);
    sum = hn::ReorderWidenMulAccumulate(d32, hn::And(hn::ShiftRight<4>(packed), mask), q2, sum,
                                        other);
    sum = hn::ReorderWidenMulAccumulate(d32, hn::ShiftRight<6>(packed), q3, sum, other);
  }
};

template <size_t kBytes>
class Adder {
 public:
  using DF = hn::CappedTag<float, kBytes>;
  using DI = hn::RebindToSigned<DF>;
  using D8 = hn::Rebind<uint8_t, DF>;

  static void Add(const uint8_t* codes, size_t rows, size_t code_dim,
                  const float* HWY_RESTRICT weights, float* HWY_RESTRICT out) {
    const size_t quarter = code_dim / 4;
    for (size_t i = 0; i < quarter; i += hn::Lanes(DF())) {
      AddColumn(codes + i, rows, quarter, weights, out + i);
    }
  }

 private:
  // The elements i, i + quarter... of every row; what is summed stays in registers.
  static HWY_INLINE void AddColumn(const uint8_t* code, size_t rows, size_t quarter,
                                   const float* HWY_RESTRICT weights, float* HWY_RESTRICT out) {
    const DF df;
    const DI di;
    const auto mask = hn::Set(di, 3);
    auto s0 = hn::LoadU(df, out), s1 = hn::LoadU(df, out + quarter);
    auto s2 = hn::LoadU(df, out + 2 * quarter), s3 = hn::LoadU(df, out + 3 * quarter);
    for (size_t row = 0; row < rows; ++row) {
      if (weights[row] == 0.0f) continue;
      const auto w = hn::Set(df, weights[row]);
      const auto packed = hn::PromoteTo(di, hn::LoadU(D8(), code + row * quarter));
      const auto u = [&](auto shifted) { return hn::ConvertTo(df, hn::And(shifted, mask)); };
      s0 = hn::MulAdd(w, u(packed), s0);
      s1 = hn::MulAdd(w, u(hn::ShiftRight<2>(packed)), s1);
      s2 = hn::MulAdd(w, u(hn::ShiftRight<4>(packed)), s2);
      s3 = hn::MulAdd(w, u(hn::ShiftRight<6>(packed)), s3);
    }
    hn::StoreU(s0, df, out);
    hn::StoreU(s1, df, out + quarter);
    hn::StoreU(s2, df, out + 2 * quarter);
    hn::StoreU(s3, df, out + 3 * quarter);
  }
};

// Elsewhere products are not added in pairs of neighbours.
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR

// Four queries at once: what a row holds is unpacked once, and the sums of the four are added up
// together. A 128-bit block of products belongs to one row.
class FourScorer {
 public:
  using D16 = hn::CappedTag<int16_t, 32>;
  using D8 = hn::Rebind<uint8_t, D16>;
  using D32 = hn::RepartitionToWide<D16>;
  using D64 = hn::RepartitionToWide<D32>;
  using V16 = hn::VFromD<D16>;
  using V32 = hn::VFromD<D32>;

  // sums[i * stride + row] of query q[i].
  static void Score(const uint8_t* codes, size_t rows, size_t quarter, const int16_t* const (&q)[4],
                    int32_t* HWY_RESTRICT sums, size_t stride) {
    const size_t lanes = hn::Lanes(D16());
    if (quarter < lanes) {
      ScoreTogether(codes, rows, quarter, q, sums, stride);
    } else {
      ScoreApart(codes, rows, quarter, q, sums, stride);
    }
  }

 private:
  struct Unpacked {
    V16 u0, u1, u2, u3;
  };
  static HWY_INLINE Unpacked Unpack(const uint8_t* codes) {
    const D16 d16;
    const V16 packed = hn::PromoteTo(d16, hn::LoadU(D8(), codes));
    const V16 mask = hn::Set(d16, int16_t{3});
    return {hn::And(packed, mask), hn::And(hn::ShiftRight<2>(packed), mask),
            hn::And(hn::ShiftRight<4>(packed), mask), hn::ShiftRight<6>(packed)};
  }
  static HWY_INLINE V32 Products(const Unpacked& u, V16 q0, V16 q1, V16 q2, V16 q3) {
    const D32 d32;
    V32 sum = hn::Zero(d32), other = hn::Zero(d32);
    sum = hn::ReorderWidenMulAccumulate(d32, u.u0, q0, sum, other);
    sum = hn::ReorderWidenMulAccumulate(d32, u.u1, q1, sum, other);
    sum = hn::ReorderWidenMulAccumulate(d32, u.u2, q2, sum, other);
    return hn::ReorderWidenMulAccumulate(d32, u.u3, q3, sum, other);
  }
  // In every block the sums of a, b, c and d over that block.
  static HWY_INLINE V32 AddBlocks(V32 a, V32 b, V32 c, V32 d) {
    const D32 d32;
    const D64 d64;
    const auto ab = hn::Add(hn::InterleaveLower(d32, a, b), hn::InterleaveUpper(d32, a, b));
    const auto cd = hn::Add(hn::InterleaveLower(d32, c, d), hn::InterleaveUpper(d32, c, d));
    const auto low = hn::InterleaveLower(d64, hn::BitCast(d64, ab), hn::BitCast(d64, cd));
    const auto high = hn::InterleaveUpper(d64, hn::BitCast(d64, ab), hn::BitCast(d64, cd));
    return hn::Add(hn::BitCast(d32, low), hn::BitCast(d32, high));
  }
  // `blocks` of the blocks in `stored` are those of one row.
  static HWY_INLINE void StoreRow(const int32_t* HWY_RESTRICT stored, size_t blocks,
                                  int32_t* HWY_RESTRICT sums, size_t stride) {
    const hn::Full128<int32_t> d;
    auto sum = hn::Load(d, stored);
    for (size_t b = 1; b < blocks; ++b) sum = hn::Add(sum, hn::Load(d, stored + 4 * b));
    HWY_ALIGN int32_t four[4];
    hn::Store(sum, d, four);
    for (size_t g = 0; g < 4; ++g) sums[g * stride] = four[g];
  }

  // Several rows in a vector.
  static void ScoreTogether(const uint8_t* codes, size_t rows, size_t quarter,
                            const int16_t* const (&q)[4], int32_t* HWY_RESTRICT sums,
                            size_t stride) {
    const D16 d16;
    const size_t lanes = hn::Lanes(d16), together = lanes / quarter, blocks = quarter / 8;
    HWY_ALIGN int16_t repeated[16 * HWY_MAX_BYTES / sizeof(int16_t)];
    for (size_t g = 0; g < 4; ++g) {
      for (size_t field = 0; field < 4; ++field) {
        for (size_t i = 0; i < lanes; i += quarter) {
          std::memcpy(repeated + (4 * g + field) * lanes + i, q[g] + field * quarter,
                      quarter * sizeof(int16_t));
        }
      }
    }
    HWY_ALIGN int32_t stored[HWY_MAX_BYTES / sizeof(int32_t)];
    HWY_ALIGN uint8_t last[HWY_MAX_BYTES] = {};
    for (size_t row = 0; row < rows; row += together) {
      const size_t count = std::min(together, rows - row);
      const uint8_t* code = codes + row * quarter;
      if (count < together) {
        std::memcpy(last, code, count * quarter);
        code = last;
      }
      const Unpacked u = Unpack(code);
      V32 products[4];
      HWY_UNROLL(4)
      for (size_t g = 0; g < 4; ++g) {
        const int16_t* r = repeated + 4 * g * lanes;
        products[g] = Products(u, hn::Load(d16, r), hn::Load(d16, r + lanes),
                               hn::Load(d16, r + 2 * lanes), hn::Load(d16, r + 3 * lanes));
      }
      hn::Store(AddBlocks(products[0], products[1], products[2], products[3]), D32(), stored);
      for (size_t r = 0; r < count; ++r) {
        StoreRow(stored + 4 * r * blocks, blocks, sums + row + r, stride);
      }
    }
  }

  // Whole vectors of one row after the other.
  static void ScoreApart(const uint8_t* codes, size_t rows, size_t quarter,
                         const int16_t* const (&q)[4], int32_t* HWY_RESTRICT sums, size_t stride) {
    const D16 d16;
    const D32 d32;
    const size_t lanes = hn::Lanes(d16);
    HWY_ALIGN int32_t stored[HWY_MAX_BYTES / sizeof(int32_t)];
    for (size_t row = 0; row < rows; ++row) {
      V32 products[4] = {hn::Zero(d32), hn::Zero(d32), hn::Zero(d32), hn::Zero(d32)};
      for (size_t i = 0; i < quarter; i += lanes) {
        const Unpacked u = Unpack(codes + row * quarter + i);
        HWY_UNROLL(4)
        for (size_t g = 0; g < 4; ++g) {
          const int16_t* r = q[g] + i;
          products[g] =
              hn::Add(products[g],
                      Products(u, hn::LoadU(d16, r), hn::LoadU(d16, r + quarter),
                               hn::LoadU(d16, r + 2 * quarter), hn::LoadU(d16, r + 3 * quarter)));
        }
      }
      hn::Store(AddBlocks(products[0], products[1], products[2], products[3]), d32, stored);
      StoreRow(stored, lanes / 8, sums + row, stride);
    }
  }
};

#endif

constexpr size_t kRowsAtOnce = 64;  // whose intermediate results stay in the first-level cache

void SumCodes(const uint8_t* codes, size_t rows, size_t code_dim, const int16_t* q, int32_t* sums) {
  constexpr size_t kTogether = 32;
  using Together = Scorer<kTogether>;
  const size_t quarter = code_dim / 4, lanes = hn::Lanes(Together::D16());
#if HWY_ARCH_X86 && \
    HWY_TARGET != HWY_SCALAR  // elsewhere products are not added in pairs of neighbours
  if (quarter < lanes) return Together::ScoreTogether(codes, rows, quarter, q, sums);
#endif
  if (quarter % lanes == 0) return Together::ScoreWide(codes, rows, quarter, q, sums);
  Together::ScoreApart(codes, rows, quarter, q, sums);
}

// The factors of a row of vectors, in float.
template <class D>
HWY_INLINE hn::Vec<D> Factors(D d, const uint8_t* factors, hn::Vec<D> unit) {
  const hn::Rebind<uint8_t, D> d8;
  const hn::RebindToSigned<D> di;
  return hn::Mul(unit, hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, factors))));
}

// The logits of `count` rows from `begin` on, from their sums; returns the largest.
float LogitsOf(const CodedRows& rows, size_t begin, size_t count, const ResidualScoring& query,
               const int32_t* HWY_RESTRICT sums, float* HWY_RESTRICT out) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const size_t lanes = hn::Lanes(d);
  const auto unit = hn::Set(d, rows.factor_unit), base = hn::Set(d, query.base);
  const auto step = hn::Set(d, query.step), offset = hn::Set(d, query.offset);
  const auto half_variance = hn::Set(d, query.half_variance);
  auto best = hn::Set(d, -std::numeric_limits<float>::infinity());
  float last_best = -std::numeric_limits<float>::infinity();
  const uint8_t* HWY_RESTRICT factors = rows.factors + begin;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto f = Factors(d, factors + i, unit);
    const auto along = hn::MulAdd(step, hn::ConvertTo(d, hn::LoadU(di, sums + i)), offset);
    const auto logit = hn::MulAdd(f, hn::MulAdd(half_variance, f, along), base);
    hn::StoreU(logit, d, out + i);
    best = hn::Max(best, logit);
  }
  for (; i < count; ++i) {
    const float f = rows.factor_unit * static_cast<float>(factors[i]);
    const float along = query.step * static_cast<float>(sums[i]) + query.offset;
    out[i] = query.base + f * (along + query.half_variance * f);
    last_best = std::max(last_best, out[i]);
  }
  return std::max(last_best, hn::GetLane(hn::MaxOfLanes(d, best)));
}

void ScoreResiduals(const CodedRows& rows, const ResidualScoring* queries, size_t query_count,
                    float* HWY_RESTRICT logits, float* HWY_RESTRICT best) {
  HWY_ALIGN int32_t sums[4 * kRowsAtOnce];
  std::fill_n(best, query_count, -std::numeric_limits<float>::infinity());
  for (size_t begin = 0; begin < rows.count; begin += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, rows.count - begin);
    const uint8_t* codes = rows.codes + begin * (rows.code_dim / 4);
    for (size_t g = 0; g < query_count;) {
      size_t together = 1;
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
      if (g + 4 <= query_count) {
        together = 4;
        const int16_t* const q[4] = {queries[g].coefficients, queries[g + 1].coefficients,
                                     queries[g + 2].coefficients, queries[g + 3].coefficients};
        FourScorer::Score(codes, count, rows.code_dim / 4, q, sums, kRowsAtOnce);
      }
#endif
      if (together == 1) SumCodes(codes, count, rows.code_dim, queries[g].coefficients, sums);
      for (size_t i = 0; i < together; ++i, ++g) {
        best[g] = std::max(best[g], LogitsOf(rows, begin, count, queries[g], sums + i * kRowsAtOnce,
                                             logits + g * rows.count + begin));
      }
    }
  }
}

float SumFactorSquares(const CodedRows& rows) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto unit = hn::Set(d, rows.factor_unit);
  auto squares = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= rows.count; i += lanes) {
    const auto f = Factors(d, rows.factors + i, unit);
    squares = hn::MulAdd(f, f, squares);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, squares));
  for (; i < rows.count; ++i) {
    const float f = rows.factor_unit * static_cast<float>(rows.factors[i]);
    sum += f * f;
  }
  return sum;
}

// weights[i] = (masses[i] - less) f of the rows whose flag is zero, else zero; returns their sum.
float WeighResiduals(const uint8_t* factors, float factor_unit, size_t count,
                     const float* HWY_RESTRICT masses, const uint8_t* HWY_RESTRICT exact,
                     float less, float* HWY_RESTRICT weights) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const size_t lanes = hn::Lanes(d);
  const auto unit = hn::Set(d, factor_unit), taken = hn::Set(d, less);
  auto sum = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto flags = hn::PromoteTo(di, hn::LoadU(d8, exact + i));
    const auto is_rest = hn::RebindMask(d, hn::Eq(flags, hn::Zero(di)));
    const auto mass = hn::Sub(hn::LoadU(d, masses + i), taken);
    const auto f = Factors(d, factors + i, unit);
    const auto weight = hn::IfThenElseZero(is_rest, hn::Mul(f, mass));
    hn::StoreU(weight, d, weights + i);
    sum = hn::Add(sum, weight);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < count; ++i) {
    const float f = factor_unit * static_cast<float>(factors[i]);
    weights[i] = exact[i] != 0 ? 0.0f : f * (masses[i] - less);
    total += weights[i];
  }
  return total;
}

float AddResiduals(const CodedRows& rows, const float* HWY_RESTRICT masses,
                   const uint8_t* HWY_RESTRICT exact, float less, float* HWY_RESTRICT out) {
  float total = 0;
  HWY_ALIGN float weights[kRowsAtOnce];
  for (size_t begin = 0; begin < rows.count; begin += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, rows.count - begin);
    total += WeighResiduals(rows.factors + begin, rows.factor_unit, count, masses + begin,
                            exact + begin, less, weights);
    const uint8_t* codes = rows.codes + begin * (rows.code_dim / 4);
    if (rows.code_dim / 4 == 8) {
      Adder<8>::Add(codes, count, rows.code_dim, weights, out);
    } else {
      Adder<16>::Add(codes, count, rows.code_dim, weights, out);
    }
  }
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace attic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {
namespace {

HWY_EXPORT(ScoreResiduals);
HWY_EXPORT(SumFactorSquares);
HWY_EXPORT(AddResiduals);

bool IsCodeDim(size_t dim) { return dim >= kResidualDimMin && (dim & (dim - 1)) == 0; }

}  // namespace

void ScoreResiduals(const CodedRows& rows, std::span<const ResidualScoring> queries, float* logits,
                    std::span<float> best) {
  ATTIC_CHECK(IsCodeDim(rows.code_dim) && best.size() == queries.size());
  HWY_DYNAMIC_DISPATCH(ScoreResiduals)(rows, queries.data(), queries.size(), logits, best.data());
}

float SumFactorSquares(const CodedRows& rows) {
  return HWY_DYNAMIC_DISPATCH(SumFactorSquares)(rows);
}

float AddResiduals(const CodedRows& rows, const float* masses, const uint8_t* exact, float less,
                   float* out) {
  ATTIC_CHECK(IsCodeDim(rows.code_dim));
  return HWY_DYNAMIC_DISPATCH(AddResiduals)(rows, masses, exact, less, out);
}

}  // namespace attic
#endif  // HWY_ONCE
