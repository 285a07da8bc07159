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
constexpr size_t kScatteredAheadBytes = 1024;
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

// Rows one after the other, of which the first `count` are summed; up to `prefetched` they are
// asked for ahead.
struct RowsInLine {
  const std::byte* data;
  ElementType type;
  size_t count, dim, row_bytes, prefetched;

  HWY_INLINE const std::byte* at(size_t i) const { return data + i * row_bytes; }
  size_t ahead() const { return kPrefetchAheadBytes / row_bytes + 1; }
};

// Rows anywhere.
struct RowsAnywhere {
  const std::byte* const* rows;
  ElementType type;
  size_t count, dim, row_bytes, prefetched;

  HWY_INLINE const std::byte* at(size_t i) const { return rows[i]; }
  // Far enough to hide a read from memory, few enough lines in flight.
  size_t ahead() const { return std::max<size_t>(2, kScatteredAheadBytes / row_bytes); }
};

// Adds the weighted rows to kColumns pairs of vectors of the sums, which stay in registers.
// `column` is the first element of the row; `sums` point at that element too.
template <class Rows, size_t kQueries, size_t kColumns, class Source>
HWY_INLINE void SumColumns(const float* const (&weights)[kQueries], const Source& rows,
                           size_t column, float* const (&sums)[kQueries]) {
  using Element = typename Rows::Element;
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t step = 2 * hn::Lanes(d);
  V a[kQueries][kColumns], b[kQueries][kColumns];
  HWY_UNROLL(4)
  for (size_t g = 0; g < kQueries; ++g) {
    HWY_UNROLL(4)
    for (size_t c = 0; c < kColumns; ++c) Rows::LoadPair(d, sums[g] + c * step, a[g][c], b[g][c]);
  }
  const size_t ahead = rows.ahead();
  const size_t prefetch_count =
      column == 0 && rows.prefetched > ahead ? rows.prefetched - ahead : 0;
  for (size_t i = 0; i < rows.count; ++i) {
    if (i < prefetch_count && AnyWeight(weights, i + ahead)) {
      PrefetchBytes(rows.at(i + ahead), rows.row_bytes);
    }
    if (!AnyWeight(weights, i)) continue;
    V weight[kQueries];
    HWY_UNROLL(4)
    for (size_t g = 0; g < kQueries; ++g) weight[g] = hn::Set(d, weights[g][i]);
    const auto* row = reinterpret_cast<const Element*>(rows.at(i)) + column;
    HWY_UNROLL(4)
    for (size_t c = 0; c < kColumns; ++c) {
      V x, y;
      Rows::Load(d, row + c * step, x, y);
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
template <class Rows, size_t kQueries, class Source>
HWY_INLINE void SumLastColumns(const float* const (&weights)[kQueries], const Source& rows,
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
      std::memcpy(part[r], rows.at(i + r) + column * sizeof(Element), rest * sizeof(Element));
    }
    const RowsInLine view{.data = reinterpret_cast<const std::byte*>(part),
                          .type = rows.type,
                          .count = count,
                          .dim = kWidth,
                          .row_bytes = sizeof(part[0]),
                          .prefetched = 0};
    SumColumns<Rows, kQueries, 1>(part_weights, view, 0, padded_sums);
  }
  for (size_t g = 0; g < kQueries; ++g) std::memcpy(sums[g], padded[g], rest * sizeof(float));
}

template <class Rows, size_t kQueries, class Source>
void SumRows(const float* weights, size_t weight_stride, const Source& rows, float* const* sums) {
  const hn::ScalableTag<float> d;
  const size_t step = 2 * hn::Lanes(d);
  constexpr size_t kColumns = kPairs / kQueries;
  const float* query_weights[kQueries];
  float* query_sums[kQueries];
  for (size_t g = 0; g < kQueries; ++g) query_weights[g] = weights + g * weight_stride;
  size_t column = 0;
  for (; column + kColumns * step <= rows.dim; column += kColumns * step) {
    for (size_t g = 0; g < kQueries; ++g) query_sums[g] = sums[g] + column;
    SumColumns<Rows, kQueries, kColumns>(query_weights, rows, column, query_sums);
  }
  for (; column + step <= rows.dim; column += step) {
    for (size_t g = 0; g < kQueries; ++g) query_sums[g] = sums[g] + column;
    SumColumns<Rows, kQueries, 1>(query_weights, rows, column, query_sums);
  }
  if (column == rows.dim) return;
  for (size_t g = 0; g < kQueries; ++g) query_sums[g] = sums[g] + column;
  SumLastColumns<Rows, kQueries>(query_weights, rows, column, query_sums);
}

template <class Rows, class Source>
void SumBlock(const float* weights, size_t query_count, size_t weight_stride, const Source& rows,
              float* const* sums) {
  switch (query_count) {
    case 1:
      return SumRows<Rows, 1>(weights, weight_stride, rows, sums);
    case 2:
      return SumRows<Rows, 2>(weights, weight_stride, rows, sums);
    case 3:
      return SumRows<Rows, 3>(weights, weight_stride, rows, sums);
    default:
      return SumRows<Rows, 4>(weights, weight_stride, rows, sums);
  }
}

// Rows are taken in parts that stay in the first-level cache while all queries and columns pass.
// part(begin, count) is the source of a part.
template <class Rows, class Part>
void SumAll(const float* weights, size_t query_count, size_t row_count, size_t row_bytes,
            const Part& part, float* const* sums) {
  const size_t rows_at_once = std::max<size_t>(8, kCachedRowsBytes / row_bytes);
  for (size_t row = 0; row < row_count; row += rows_at_once) {
    const auto rows = part(row, std::min(rows_at_once, row_count - row));
    for (size_t g = 0; g < query_count; g += kQueryBlock) {
      SumBlock<Rows>(weights + g * row_count + row, std::min(kQueryBlock, query_count - g),
                     row_count, rows, sums + g);
    }
  }
}

template <class Part>
void SumOfType(ElementType type, const float* weights, size_t query_count, size_t row_count,
               size_t row_bytes, const Part& part, float* const* sums) {
  switch (type) {
    case ElementType::kFloat32:
      return SumAll<Float32Rows>(weights, query_count, row_count, row_bytes, part, sums);
    case ElementType::kBFloat16:
      return SumAll<BFloat16Rows>(weights, query_count, row_count, row_bytes, part, sums);
    case ElementType::kFloat16:
      return SumAll<Float16Rows>(weights, query_count, row_count, row_bytes, part, sums);
  }
}

void WeightedSumKernel(const float* weights, size_t query_count, const VectorsView& vectors,
                       float* const* sums) {
  const auto part = [&](size_t begin, size_t count) {
    return RowsInLine{.data = vectors.row(begin),
                      .type = vectors.type,
                      .count = count,
                      .dim = vectors.dim,
                      .row_bytes = vectors.row_bytes(),
                      .prefetched = vectors.count - begin};
  };
  SumOfType(vectors.type, weights, query_count, vectors.count, vectors.row_bytes(), part, sums);
}

void ScatteredSumKernel(const float* weights, size_t query_count, const ScatteredRows& scattered,
                        float* const* sums) {
  const size_t row_bytes = scattered.dim * ElementBytes(scattered.type);
  const auto part = [&](size_t begin, size_t count) {
    return RowsAnywhere{.rows = scattered.rows.data() + begin,
                        .type = scattered.type,
                        .count = count,
                        .dim = scattered.dim,
                        .row_bytes = row_bytes,
                        .prefetched = scattered.rows.size() - begin};
  };
  SumOfType(scattered.type, weights, query_count, scattered.rows.size(), row_bytes, part, sums);
}

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(WeightedSumKernel);
HWY_EXPORT(ScatteredSumKernel);

namespace {

// Calls add(g, pointers to the sums of the queries from g on) for all queries.
template <class Add>
void ForQueries(size_t query_count, size_t dim, float* sums, const Add& add) {
  constexpr size_t kQueriesAtOnce = 16;
  float* pointers[kQueriesAtOnce];
  for (size_t g = 0; g < query_count; g += kQueriesAtOnce) {
    const size_t count = std::min(kQueriesAtOnce, query_count - g);
    for (size_t i = 0; i < count; ++i) pointers[i] = sums + (g + i) * dim;
    add(g, std::span<float* const>(pointers, count));
  }
}

}  // namespace

void AddWeightedVectors(const float* weights, const VectorsView& vectors,
                        std::span<float* const> sums) {
  if (vectors.dim == 0) return;
  HWY_DYNAMIC_DISPATCH(WeightedSumKernel)(weights, sums.size(), vectors, sums.data());
}

void AddWeightedVectors(const float* weights, size_t query_count, const VectorsView& vectors,
                        float* sums) {
  ForQueries(query_count, vectors.dim, sums, [&](size_t g, std::span<float* const> pointers) {
    AddWeightedVectors(weights + g * vectors.count, vectors, pointers);
  });
}

void AddWeightedVectors(const float* weights, size_t query_count, const ScatteredRows& vectors,
                        float* sums) {
  if (vectors.dim == 0) return;
  ForQueries(query_count, vectors.dim, sums, [&](size_t g, std::span<float* const> pointers) {
    HWY_DYNAMIC_DISPATCH(ScatteredSumKernel)
    (weights + g * vectors.rows.size(), pointers.size(), vectors, pointers.data());
  });
}

}  // namespace attic
#endif  // HWY_ONCE
