#include <algorithm>
#include <cstring>

#include "attention/vector_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/score_vectors.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "attention/widen-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {

constexpr size_t kRowBlock = 4;      // rows scored together
constexpr size_t kQueryBlock = 4;    // queries scored together, at most
constexpr size_t kPackedDim = 1024;  // longer vectors are scored in parts of this many elements
constexpr size_t kCachedRowsBytes = 16 << 10;
constexpr size_t kLanesMax = HWY_MAX_BYTES / sizeof(float);

// Part of the dimensions of a block of queries, reordered as the rows' loader orders its lanes and
// padded with zeros to whole pairs of vectors.
struct PackedQueries {
  alignas(HWY_MAX_BYTES) float data[kQueryBlock][kPackedDim];
  size_t begin;  // first dimension
  size_t dim;    // dimensions
};

template <class Rows>
HWY_INLINE void Pack(const float* queries, size_t query_count, size_t query_stride,
                     PackedQueries& packed) {
  const hn::ScalableTag<float> d;
  const size_t step = 2 * hn::Lanes(d);
  hn::Vec<decltype(d)> a, b;
  for (size_t g = 0; g < query_count; ++g) {
    const float* query = queries + g * query_stride + packed.begin;
    for (size_t i = 0; i < packed.dim; i += step) {
      if (i + step <= packed.dim) {
        Rows::LoadPair(d, query + i, a, b);
      } else {
        float last[2 * kLanesMax] = {};
        std::memcpy(last, query + i, (packed.dim - i) * sizeof(float));
        Rows::LoadPair(d, last, a, b);
      }
      hn::Store(a, d, packed.data[g] + i);
      hn::Store(b, d, packed.data[g] + i + hn::Lanes(d));
    }
  }
}

// Adds the products of one pair of vectors of kRows rows with that of kQueries queries.
template <class Rows, size_t kQueries, size_t kRows, class D, class V>
HWY_INLINE void AddProducts(D d, const typename Rows::Element* const* rows, size_t offset,
                            const PackedQueries& packed, size_t i, V (&sums)[kQueries][kRows]) {
  V a[kRows], b[kRows];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    Rows::Load(d, rows[r] + offset, a[r], b[r]);
  }
  HWY_UNROLL(4)
  for (size_t g = 0; g < kQueries; ++g) {
    const V qa = hn::Load(d, packed.data[g] + i);
    const V qb = hn::Load(d, packed.data[g] + i + hn::Lanes(d));
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      sums[g][r] = hn::MulAdd(qb, b[r], hn::MulAdd(qa, a[r], sums[g][r]));
    }
  }
}

// Highway's scalar target, the last resort, has no 128-bit blocks to transpose.
#if HWY_TARGET != HWY_SCALAR
// Adds up the 128-bit blocks of v.
template <class D, class V>
HWY_INLINE auto SumBlocks(D /*d*/, V v) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return SumBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// The four sums of lanes, in order. A transposition shared by four vectors costs a third of four
// separate sums.
template <class D, class V>
HWY_INLINE auto SumFour(D d, V s0, V s1, V s2, V s3) {
  const hn::RepartitionToWide<decltype(d)> dw;
  const V t01 = hn::Add(hn::InterleaveLower(d, s0, s1), hn::InterleaveUpper(d, s0, s1));
  const V t23 = hn::Add(hn::InterleaveLower(d, s2, s3), hn::InterleaveUpper(d, s2, s3));
  const auto w01 = hn::BitCast(dw, t01);
  const auto w23 = hn::BitCast(dw, t23);
  const V lower = hn::BitCast(d, hn::InterleaveLower(dw, w01, w23));
  const V upper = hn::BitCast(d, hn::InterleaveUpper(dw, w01, w23));
  return SumBlocks(d, hn::Add(lower, upper));
}
#endif  // HWY_TARGET != HWY_SCALAR

// scores[r] = the sum of the lanes of sums[r], added to what `scores` holds if `add`.
template <size_t kRows, class D, class V>
HWY_INLINE void StoreSums(D d, const V (&sums)[kRows], bool add, float* scores) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kRows == 4) {
    const hn::FixedTag<float, 4> d4;
    auto four = SumFour(d, sums[0], sums[1], sums[2], sums[3]);
    if (add) four = hn::Add(four, hn::LoadU(d4, scores));
    hn::StoreU(four, d4, scores);
    return;
  }
#endif
  for (size_t r = 0; r < kRows; ++r) {
    const float sum = hn::GetLane(hn::SumOfLanes(d, sums[r]));
    scores[r] = add ? scores[r] + sum : sum;
  }
}

// Scores kRows rows from `row` on against kQueries packed queries, adding to what `scores` holds
// unless these are the first dimensions. scores[g * stride + r].
template <class Rows, size_t kQueries, size_t kRows>
HWY_INLINE void ScoreBlock(const std::byte* row, size_t row_bytes, const PackedQueries& packed,
                           float* scores, size_t stride) {
  using Element = typename Rows::Element;
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t step = 2 * hn::Lanes(d);
  V sums[kQueries][kRows];
  const Element* rows[kRows];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    rows[r] = reinterpret_cast<const Element*>(row + r * row_bytes) + packed.begin;
    HWY_UNROLL(4)
    for (size_t g = 0; g < kQueries; ++g) sums[g][r] = hn::Zero(d);
  }
  size_t i = 0;
  for (; i + step <= packed.dim; i += step) AddProducts<Rows>(d, rows, i, packed, i, sums);
  if (i < packed.dim) {
    Element last[kRows][2 * kLanesMax] = {};
    for (size_t r = 0; r < kRows; ++r) {
      std::memcpy(last[r], row + r * row_bytes + (packed.begin + i) * sizeof(Element),
                  (packed.dim - i) * sizeof(Element));
      rows[r] = last[r];
    }
    AddProducts<Rows>(d, rows, 0, packed, i, sums);
  }
  HWY_UNROLL(4)
  for (size_t g = 0; g < kQueries; ++g) {
    StoreSums(d, sums[g], packed.begin > 0, scores + g * stride);
  }
}

template <class Rows, size_t kQueries>
void ScoreRows(const VectorsView& rows, const PackedQueries& packed, float* scores, size_t stride) {
  const size_t row_bytes = rows.row_bytes();
  const size_t ahead = kPrefetchAheadBytes / row_bytes + 1;
  size_t i = 0;
  for (; i + kRowBlock <= rows.count; i += kRowBlock) {
    if (i + ahead + kRowBlock <= rows.count) {
      PrefetchBytes(rows.row(i + ahead), kRowBlock * row_bytes);
    }
    ScoreBlock<Rows, kQueries, kRowBlock>(rows.row(i), row_bytes, packed, scores + i, stride);
  }
  for (; i < rows.count; ++i) {
    ScoreBlock<Rows, kQueries, 1>(rows.row(i), row_bytes, packed, scores + i, stride);
  }
}

template <class Rows>
void ScorePacked(const VectorsView& rows, size_t query_count, const PackedQueries& packed,
                 float* scores, size_t stride) {
  switch (query_count) {
    case 1:
      return ScoreRows<Rows, 1>(rows, packed, scores, stride);
    case 2:
      return ScoreRows<Rows, 2>(rows, packed, scores, stride);
    case 3:
      return ScoreRows<Rows, 3>(rows, packed, scores, stride);
    default:
      return ScoreRows<Rows, 4>(rows, packed, scores, stride);
  }
}

// Rows are taken in parts that stay in the first-level cache while all queries pass over them.
template <class Rows>
void ScoreAll(const float* queries, size_t query_count, const VectorsView& vectors, float* scores) {
  PackedQueries packed;
  const size_t dim = vectors.dim;
  const bool packed_once = query_count <= kQueryBlock && dim <= kPackedDim;
  const size_t rows_at_once =
      packed_once ? vectors.count : std::max(kRowBlock, kCachedRowsBytes / vectors.row_bytes());
  for (size_t row = 0; row < vectors.count; row += rows_at_once) {
    const VectorsView rows = vectors.rows(row, std::min(rows_at_once, vectors.count - row));
    for (size_t g = 0; g < query_count; g += kQueryBlock) {
      const size_t block = std::min(kQueryBlock, query_count - g);
      for (size_t begin = 0; begin < dim; begin += kPackedDim) {
        packed.begin = begin;
        packed.dim = std::min(kPackedDim, dim - begin);
        Pack<Rows>(queries + g * dim, block, dim, packed);
        ScorePacked<Rows>(rows, block, packed, scores + g * vectors.count + row, vectors.count);
      }
    }
  }
}

void ScoreKernel(const float* queries, size_t query_count, const VectorsView& vectors,
                 float* scores) {
  switch (vectors.type) {
    case ElementType::kFloat32:
      return ScoreAll<Float32Rows>(queries, query_count, vectors, scores);
    case ElementType::kBFloat16:
      return ScoreAll<BFloat16Rows>(queries, query_count, vectors, scores);
    case ElementType::kFloat16:
      return ScoreAll<Float16Rows>(queries, query_count, vectors, scores);
  }
}

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(ScoreKernel);

void ScoreVectors(const float* queries, size_t query_count, const VectorsView& vectors,
                  float* scores) {
  if (vectors.dim == 0) {
    std::fill_n(scores, query_count * vectors.count, 0.0f);
    return;
  }
  HWY_DYNAMIC_DISPATCH(ScoreKernel)(queries, query_count, vectors, scores);
}

}  // namespace attic
#endif  // HWY_ONCE
