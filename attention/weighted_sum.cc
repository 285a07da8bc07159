#include <algorithm>
#include <cstring>

#include "attention/vector_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/weighted_sum.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "attention/widen-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {

constexpr size_t kQueryBlock = 4;  // queries summed together, at most
constexpr size_t kCachedRowsBytes = 16 << 10;
constexpr size_t kLanesMax = HWY_MAX_BYTES / sizeof(float);
// Pairs of vectors whose sums stay in registers: half of the registers hold sums.
constexpr size_t kPairs = HWY_TARGET == HWY_AVX3 ? 8 : 4;

template <size_t kQueries>
HWY_INLINE bool AnyWeight(const float* const (&weights)[kQueries], size_t i) {
  bool any = false;
  HWY_UNROLL(4)
  for (size_t g = 0; g < kQueries; ++g) any |= weights[g][i] != 0.0f;
  return any;
}

// Adds the weighted rows to kColumns pairs of vectors of the sums, which stay in registers.
// `column` is the first element of the row; `sums` point at that element too.
template <class Rows, size_t kQueries, size_t kColumns>
HWY_INLINE void SumColumns(const float* const (&weights)[kQueries], const VectorsView& rows,
                           size_t row_count, size_t column, float* const (&sums)[kQueries]) {
  using Element = typename Rows::Element;
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t step = 2 * hn::Lanes(d);
  const size_t row_bytes = rows.row_bytes();
  V a[kQueries][kColumns], b[kQueries][kColumns];
  HWY_UNROLL(4)
  for (size_t g = 0; g < kQueries; ++g) {
    HWY_UNROLL(4)
    for (size_t c = 0; c < kColumns; ++c) Rows::LoadPair(d, sums[g] + c * step, a[g][c], b[g][c]);
  }
  const size_t ahead = kPrefetchAheadBytes / row_bytes + 1;
  const size_t prefetch_count = row_count > ahead ? row_count - ahead : 0;
  const std::byte* row = rows.data + column * sizeof(Element);
  for (size_t i = 0; i < rows.count; ++i, row += row_bytes) {
    if (i < prefetch_count && AnyWeight(weights, i + ahead)) {
      PrefetchBytes(row + ahead * row_bytes, row_bytes);
    }
    if (!AnyWeight(weights, i)) continue;
    V weight[kQueries];
    HWY_UNROLL(4)
    for (size_t g = 0; g < kQueries; ++g) weight[g] = hn::Set(d, weights[g][i]);
    HWY_UNROLL(4)
    for (size_t c = 0; c < kColumns; ++c) {
      V x, y;
      Rows::Load(d, reinterpret_cast<const Element*>(row) + c * step, x, y);
      HWY_UNROLL(4)
      for (size_t g = 0; g < kQueries; ++g) {
        a[g][c] = hn::MulAdd(weight[g], x, a[g][c]);
        b[g][c] = hn::MulAdd(weight[g], y, b[g][c]);
      }
    }
  }
  HWY_UNROLL(4)
  for (size_t g = 0; g < kQueries; ++g) {
    HWY_UNROLL(4)
    for (size_t c = 0; c < kColumns; ++c) Rows::StorePair(d, a[g][c], b[g][c], sums[g] + c * step);
  }
}

// The last elements of the rows, fewer than a pair of vectors holds, from `column` on.
template <class Rows, size_t kQueries>
HWY_INLINE void SumLastColumns(const float* const (&weights)[kQueries], const VectorsView& rows,
                               size_t column, float* const (&sums)[kQueries]) {
  using Element = typename Rows::Element;
  constexpr size_t kRowsAtOnce = 8;
  constexpr size_t kWidth = 2 * kLanesMax;
  const size_t rest = rows.dim - column;
  float padded[kQueries][kWidth] = {};
  float* padded_sums[kQueries];
  for (size_t g = 0; g < kQueries; ++g) {
    std::memcpy(padded[g], sums[g], rest * sizeof(float));
    padded_sums[g] = padded[g];
  }
  Element part[kRowsAtOnce][kWidth] = {};
  for (size_t i = 0; i < rows.count; i += kRowsAtOnce) {
    const size_t count = std::min(kRowsAtOnce, rows.count - i);
    const float* part_weights[kQueries];
    for (size_t g = 0; g < kQueries; ++g) part_weights[g] = weights[g] + i;
    for (size_t r = 0; r < count; ++r) {
      if (!AnyWeight(weights, i + r)) continue;
      std::memcpy(part[r], rows.row(i + r) + column * sizeof(Element), rest * sizeof(Element));
    }
    const VectorsView view = {reinterpret_cast<const std::byte*>(part), rows.type, count, kWidth};
    SumColumns<Rows, kQueries, 1>(part_weights, view, 0, 0, padded_sums);
  }
  for (size_t g = 0; g < kQueries; ++g) std::memcpy(sums[g], padded[g], rest * sizeof(float));
}

template <class Rows, size_t kQueries>
void SumRows(const float* weights, size_t weight_stride, const VectorsView& rows, size_t row_count,
             float* const* sums) {
  const hn::ScalableTag<float> d;
  const size_t step = 2 * hn::Lanes(d);
  constexpr size_t kColumns = kPairs / kQueries;
  const float* query_weights[kQueries];
  float* query_sums[kQueries];
  for (size_t g = 0; g < kQueries; ++g) query_weights[g] = weights + g * weight_stride;
  size_t column = 0;
  for (; column + kColumns * step <= rows.dim; column += kColumns * step) {
    for (size_t g = 0; g < kQueries; ++g) query_sums[g] = sums[g] + column;
    SumColumns<Rows, kQueries, kColumns>(query_weights, rows, column == 0 ? row_count : 0, column,
                                         query_sums);
  }
  for (; column + step <= rows.dim; column += step) {
    for (size_t g = 0; g < kQueries; ++g) query_sums[g] = sums[g] + column;
    SumColumns<Rows, kQueries, 1>(query_weights, rows, column == 0 ? row_count : 0, column,
                                  query_sums);
  }
  if (column == rows.dim) return;
  for (size_t g = 0; g < kQueries; ++g) query_sums[g] = sums[g] + column;
  SumLastColumns<Rows, kQueries>(query_weights, rows, column, query_sums);
}

template <class Rows>
void SumBlock(const float* weights, size_t query_count, size_t weight_stride,
              const VectorsView& rows, size_t row_count, float* const* sums) {
  switch (query_count) {
    case 1:
      return SumRows<Rows, 1>(weights, weight_stride, rows, row_count, sums);
    case 2:
      return SumRows<Rows, 2>(weights, weight_stride, rows, row_count, sums);
    case 3:
      return SumRows<Rows, 3>(weights, weight_stride, rows, row_count, sums);
    default:
      return SumRows<Rows, 4>(weights, weight_stride, rows, row_count, sums);
  }
}

// Rows are taken in parts that stay in the first-level cache while all queries and columns pass.
template <class Rows>
void SumAll(const float* weights, size_t query_count, const VectorsView& vectors,
            float* const* sums) {
  const size_t rows_at_once = std::max<size_t>(8, kCachedRowsBytes / vectors.row_bytes());
  for (size_t row = 0; row < vectors.count; row += rows_at_once) {
    const VectorsView rows = vectors.rows(row, std::min(rows_at_once, vectors.count - row));
    for (size_t g = 0; g < query_count; g += kQueryBlock) {
      SumBlock<Rows>(weights + g * vectors.count + row, std::min(kQueryBlock, query_count - g),
                     vectors.count, rows, vectors.count - row, sums + g);
    }
  }
}

void WeightedSumKernel(const float* weights, size_t query_count, const VectorsView& vectors,
                       float* const* sums) {
  switch (vectors.type) {
    case ElementType::kFloat32:
      return SumAll<Float32Rows>(weights, query_count, vectors, sums);
    case ElementType::kBFloat16:
      return SumAll<BFloat16Rows>(weights, query_count, vectors, sums);
    case ElementType::kFloat16:
      return SumAll<Float16Rows>(weights, query_count, vectors, sums);
  }
}

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(WeightedSumKernel);

void AddWeightedVectors(const float* weights, const VectorsView& vectors,
                        std::span<float* const> sums) {
  if (vectors.dim == 0) return;
  HWY_DYNAMIC_DISPATCH(WeightedSumKernel)(weights, sums.size(), vectors, sums.data());
}

void AddWeightedVectors(const float* weights, size_t query_count, const VectorsView& vectors,
                        float* sums) {
  constexpr size_t kQueriesAtOnce = 16;
  float* pointers[kQueriesAtOnce];
  for (size_t g = 0; g < query_count; g += kQueriesAtOnce) {
    const size_t count = std::min(kQueriesAtOnce, query_count - g);
    for (size_t i = 0; i < count; ++i) pointers[i] = sums + (g + i) * vectors.dim;
    AddWeightedVectors(weights + g * vectors.count, vectors, std::span(pointers, count));
  }
}

}  // namespace attic
#endif  // HWY_ONCE
