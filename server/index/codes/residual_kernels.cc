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
                  const float* HWY_RESTRICT weights, size_t query_count, float* HWY_RESTRICT out) {
    const size_t quarter = code_dim / 4;
    for (size_t g = 0; g < query_count; ++g) {
      for (size_t i = 0; i < quarter; i += hn::Lanes(DF())) {
        AddColumn(codes + i, rows, quarter, weights + g * rows, out + g * code_dim + i);
      }
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

void ScoreResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const int16_t* coefficients,
                    size_t query_count, int32_t* sums) {
  constexpr size_t kTogether = 32;
  using Together = Scorer<kTogether>;
  const size_t quarter = code_dim / 4, lanes = hn::Lanes(Together::D16());
  for (size_t g = 0; g < query_count; ++g) {
    const int16_t* q = coefficients + g * code_dim;
    int32_t* out = sums + g * rows;
#if HWY_ARCH_X86 && \
    HWY_TARGET != HWY_SCALAR  // elsewhere products are not added in pairs of neighbours
    if (quarter < lanes) {
      Together::ScoreTogether(codes, rows, quarter, q, out);
      continue;
    }
#endif
    if (quarter % lanes == 0) {
      Together::ScoreWide(codes, rows, quarter, q, out);
    } else {
      Together::ScoreApart(codes, rows, quarter, q, out);
    }
  }
}

// w (count) are masses of rows with their logits; flags say which are exact.
RowSums SumRows(const float* HWY_RESTRICT logits, const float* HWY_RESTRICT w,
                const uint8_t* HWY_RESTRICT exact, size_t count) {
  const hn::CappedTag<float, 16> d;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const hn::RebindToSigned<decltype(d)> di;
  const auto zero = hn::Zero(d), lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto rest = zero, rest_squares = zero, all = zero, squares = zero, best = lowest;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto flag = hn::PromoteTo(di, hn::LoadU(d8, exact + i));
    const auto is_rest = hn::RebindMask(d, hn::Eq(flag, hn::Zero(di)));
    const auto mass = hn::LoadU(d, w + i);
    const auto left = hn::IfThenElseZero(is_rest, mass);
    all = hn::Add(all, mass);
    squares = hn::MulAdd(mass, mass, squares);
    rest = hn::Add(rest, left);
    rest_squares = hn::MulAdd(left, left, rest_squares);
    best = hn::Max(best, hn::IfThenElse(is_rest, hn::LoadU(d, logits + i), lowest));
  }
  RowSums sums;
  sums.rest = hn::GetLane(hn::SumOfLanes(d, rest));
  sums.rest_squares = hn::GetLane(hn::SumOfLanes(d, rest_squares));
  sums.exact = hn::GetLane(hn::SumOfLanes(d, all)) - sums.rest;
  sums.exact_squares = hn::GetLane(hn::SumOfLanes(d, squares)) - sums.rest_squares;
  sums.best_rest = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < count; ++i) {
    if (exact[i] != 0) {
      sums.exact += w[i];
      sums.exact_squares += w[i] * w[i];
    } else {
      sums.rest += w[i];
      sums.rest_squares += w[i] * w[i];
      sums.best_rest = std::max(sums.best_rest, logits[i]);
    }
  }
  return sums;
}

void AddResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const float* weights,
                  size_t query_count, float* out) {
  if (code_dim / 4 == 8) return Adder<8>::Add(codes, rows, code_dim, weights, query_count, out);
  Adder<16>::Add(codes, rows, code_dim, weights, query_count, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace attic
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {
namespace {

HWY_EXPORT(ScoreResiduals);
HWY_EXPORT(AddResiduals);
HWY_EXPORT(SumRows);

bool IsCodeDim(size_t dim) { return dim >= kResidualDimMin && (dim & (dim - 1)) == 0; }

}  // namespace

void ScoreResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const int16_t* coefficients,
                    size_t query_count, int32_t* sums) {
  ATTIC_CHECK(IsCodeDim(code_dim));
  HWY_DYNAMIC_DISPATCH(ScoreResiduals)(codes, rows, code_dim, coefficients, query_count, sums);
}

RowSums SumRows(const float* logits, const float* masses, const uint8_t* exact, size_t count) {
  return HWY_DYNAMIC_DISPATCH(SumRows)(logits, masses, exact, count);
}

void AddResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const float* weights,
                  size_t query_count, float* out) {
  ATTIC_CHECK(IsCodeDim(code_dim));
  HWY_DYNAMIC_DISPATCH(AddResiduals)(codes, rows, code_dim, weights, query_count, out);
}

}  // namespace attic
#endif  // HWY_ONCE
