#include "server/index/codes/residual_kernels.h"

#include <algorithm>

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

// kBytes: how many bytes of a code are unpacked together at most; it divides code_dim / 4.
template <size_t kBytes>
class Scorer {
 public:
  using D16 = hn::CappedTag<int16_t, kBytes>;
  using D8 = hn::Rebind<uint8_t, D16>;
  using D32 = hn::RepartitionToWide<D16>;

  static void Score(const uint8_t* codes, size_t rows, size_t code_dim,
                    const int16_t* HWY_RESTRICT coefficients, size_t query_count,
                    int32_t* HWY_RESTRICT sums) {
    const size_t quarter = code_dim / 4;
    for (size_t row = 0; row < rows; ++row) {
      for (size_t g = 0; g < query_count; ++g) {
        sums[g * rows + row] = ScoreRow(codes + row * quarter, quarter, coefficients + g * code_dim);
      }
    }
  }

 private:
  static HWY_INLINE int32_t ScoreRow(const uint8_t* code, size_t quarter,
                                     const int16_t* HWY_RESTRICT q) {
    const D16 d16;
    const D32 d32;
    const auto mask = hn::Set(d16, int16_t{3});
    auto even = hn::Zero(d32), odd = hn::Zero(d32);
    for (size_t i = 0; i < quarter; i += hn::Lanes(d16)) {
      const auto packed = hn::PromoteTo(d16, hn::LoadU(D8(), code + i));
      const auto u0 = hn::And(packed, mask);
      const auto u1 = hn::And(hn::ShiftRight<2>(packed), mask);
      const auto u2 = hn::And(hn::ShiftRight<4>(packed), mask);
      const auto u3 = hn::ShiftRight<6>(packed);
      even = hn::ReorderWidenMulAccumulate(d32, u0, hn::LoadU(d16, q + i), even, odd);
      even = hn::ReorderWidenMulAccumulate(d32, u1, hn::LoadU(d16, q + quarter + i), even, odd);
      even = hn::ReorderWidenMulAccumulate(d32, u2, hn::LoadU(d16, q + 2 * quarter + i), even, odd);
      even = hn::ReorderWidenMulAccumulate(d32, u3, hn::LoadU(d16, q + 3 * quarter + i), even, odd);
    }
    return hn::GetLane(hn::SumOfLanes(d32, hn::Add(even, odd)));
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
  switch (code_dim / 4) {
    case 8:
      return Scorer<8>::Score(codes, rows, code_dim, coefficients, query_count, sums);
    case 16:
      return Scorer<16>::Score(codes, rows, code_dim, coefficients, query_count, sums);
    default:
      return Scorer<32>::Score(codes, rows, code_dim, coefficients, query_count, sums);
  }
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

bool IsCodeDim(size_t dim) { return dim >= kResidualDimMin && (dim & (dim - 1)) == 0; }

}  // namespace

void ScoreResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const int16_t* coefficients,
                    size_t query_count, int32_t* sums) {
  ATTIC_CHECK(IsCodeDim(code_dim));
  HWY_DYNAMIC_DISPATCH(ScoreResiduals)(codes, rows, code_dim, coefficients, query_count, sums);
}

void AddResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const float* weights,
                  size_t query_count, float* out) {
  ATTIC_CHECK(IsCodeDim(code_dim));
  HWY_DYNAMIC_DISPATCH(AddResiduals)(codes, rows, code_dim, weights, query_count, out);
}

}  // namespace attic
#endif  // HWY_ONCE
