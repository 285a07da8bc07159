#include "attention/gather_scores.h"

#include <algorithm>
#include <cstring>

#ifndef ATTIC_ATTENTION_GATHER_SCORES_ONCE_
#define ATTIC_ATTENTION_GATHER_SCORES_ONCE_
namespace attic {
// Two of the widest vectors of any target; HWY_MAX_BYTES outside a target is the baseline's.
inline constexpr size_t kPairFloatsMax = 32;
}  // namespace attic
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/gather_scores.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "attention/widen-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attic::HWY_NAMESPACE {

constexpr size_t kRowsTogether = 4;
// How far ahead rows are prefetched: far enough to hide a read from memory, few enough lines in
// flight for the core's fill buffers.
constexpr size_t kRowsAhead = 8;
constexpr size_t kCacheLineBytes = 64;
constexpr size_t kPrefetchBytesMax = 512;  // the hardware prefetcher follows longer rows by itself
constexpr size_t kVectorLanesMax = HWY_MAX_BYTES / sizeof(float);
static_assert(2 * kVectorLanesMax <= kPairFloatsMax);

template <class Rows>
void PackAs(const float* query, size_t dim, float* packed) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<decltype(d)> a, b;
  for (size_t i = 0; i < dim; i += 2 * lanes) {
    float last[2 * kVectorLanesMax] = {};
    const float* in = query + i;
    if (i + 2 * lanes > dim) {
      std::memcpy(last, in, (dim - i) * sizeof(float));
      in = last;
    }
    Rows::LoadPair(d, in, a, b);
    hn::StoreU(a, d, packed + i);
    hn::StoreU(b, d, packed + i + lanes);
  }
}

// scores[r] = packed . rows[r] for kRows rows.
template <class Rows, size_t kRows>
HWY_INLINE void ScoreTogether(const float* packed, const std::byte* const* row_data, size_t dim,
                              float* scores) {
  using Element = typename Rows::Element;
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const Element* rows[kRows];
  V sums[kRows];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    rows[r] = reinterpret_cast<const Element*>(row_data[r]);
    sums[r] = hn::Zero(d);
  }
  V a, b;
  size_t i = 0;
  for (; i + 2 * lanes <= dim; i += 2 * lanes) {
    const V qa = hn::LoadU(d, packed + i);
    const V qb = hn::LoadU(d, packed + i + lanes);
    HWY_UNROLL(4)
    for (size_t r = 0; r < kRows; ++r) {
      Rows::Load(d, rows[r] + i, a, b);
      sums[r] = hn::MulAdd(qb, b, hn::MulAdd(qa, a, sums[r]));
    }
  }
  if (i < dim) {
    const V qa = hn::LoadU(d, packed + i);
    const V qb = hn::LoadU(d, packed + i + lanes);
    for (size_t r = 0; r < kRows; ++r) {
      Element last[2 * kVectorLanesMax] = {};
      std::memcpy(last, row_data[r] + i * sizeof(Element), (dim - i) * sizeof(Element));
      Rows::Load(d, last, a, b);
      sums[r] = hn::MulAdd(qb, b, hn::MulAdd(qa, a, sums[r]));
    }
  }
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) scores[r] = hn::GetLane(hn::SumOfLanes(d, sums[r]));
}

HWY_INLINE void PrefetchRow(const std::byte* row, size_t bytes) {
  for (size_t offset = 0; offset < bytes; offset += kCacheLineBytes) {
    __builtin_prefetch(row + offset);
  }
}

// row_at(i) is the address of row i.
template <class Rows, class RowAt>
HWY_INLINE void GatherAs(const float* packed, size_t dim, size_t count, const RowAt& row_at,
                         float* scores) {
  const size_t row_bytes = dim * sizeof(typename Rows::Element);
  const size_t prefetch_bytes = std::min(row_bytes, kPrefetchBytesMax);
  for (size_t i = 0; i < std::min(count, kRowsAhead); ++i) PrefetchRow(row_at(i), prefetch_bytes);
  const std::byte* together[kRowsTogether];
  size_t i = 0;
  for (; i + kRowsTogether <= count; i += kRowsTogether) {
    const size_t ahead_end = std::min(count, i + kRowsAhead + kRowsTogether);
    for (size_t j = i + kRowsAhead; j < ahead_end; ++j) PrefetchRow(row_at(j), prefetch_bytes);
    for (size_t r = 0; r < kRowsTogether; ++r) together[r] = row_at(i + r);
    ScoreTogether<Rows, kRowsTogether>(packed, together, dim, scores + i);
  }
  for (; i < count; ++i) {
    together[0] = row_at(i);
    ScoreTogether<Rows, 1>(packed, together, dim, scores + i);
  }
}

void PackKernel(const float* query, size_t dim, ElementType type, float* packed) {
  switch (type) {
    case ElementType::kFloat32:
      return PackAs<Float32Rows>(query, dim, packed);
    case ElementType::kBFloat16:
      return PackAs<BFloat16Rows>(query, dim, packed);
    case ElementType::kFloat16:
      return PackAs<Float16Rows>(query, dim, packed);
  }
}

template <class RowAt>
HWY_INLINE void GatherOf(ElementType type, const float* packed, size_t dim, size_t count,
                         const RowAt& row_at, float* scores) {
  switch (type) {
    case ElementType::kFloat32:
      return GatherAs<Float32Rows>(packed, dim, count, row_at, scores);
    case ElementType::kBFloat16:
      return GatherAs<BFloat16Rows>(packed, dim, count, row_at, scores);
    case ElementType::kFloat16:
      return GatherAs<Float16Rows>(packed, dim, count, row_at, scores);
  }
}

void GatherKernel(const float* packed, const VectorsView& vectors, const uint32_t* rows,
                  size_t count, float* scores) {
  const std::byte* data = vectors.data;
  const size_t row_bytes = vectors.row_bytes();
  GatherOf(
      vectors.type, packed, vectors.dim, count,
      [=](size_t i) { return data + rows[i] * row_bytes; }, scores);
}

void ScatteredKernel(const float* packed, const ScatteredRows& scattered, float* scores) {
  const std::byte* const* rows = scattered.rows.data();
  GatherOf(
      scattered.type, packed, scattered.dim, scattered.rows.size(),
      [=](size_t i) { return rows[i]; }, scores);
}

}  // namespace attic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attic {

HWY_EXPORT(PackKernel);
HWY_EXPORT(GatherKernel);
HWY_EXPORT(ScatteredKernel);

size_t PackedQueryFloats(size_t dim) {
  return (dim + kPairFloatsMax - 1) / kPairFloatsMax * kPairFloatsMax;
}

void PackQuery(const float* query, size_t dim, ElementType type, float* packed) {
  HWY_DYNAMIC_DISPATCH(PackKernel)(query, dim, type, packed);
}

void GatherScores(const float* packed, const VectorsView& vectors, std::span<const uint32_t> rows,
                  float* scores) {
  HWY_DYNAMIC_DISPATCH(GatherKernel)(packed, vectors, rows.data(), rows.size(), scores);
}

void GatherScores(const float* packed, const ScatteredRows& rows, float* scores) {
  HWY_DYNAMIC_DISPATCH(ScatteredKernel)(packed, rows, scores);
}

}  // namespace attic
#endif  // HWY_ONCE
