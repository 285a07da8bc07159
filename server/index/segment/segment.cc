#include "server/index/segment/segment.h"

#include <algorithm>

#include "base/check.h"

namespace attic {
namespace {

template <typename T>
uint64_t Bytes(const std::vector<T>& v) {
  return v.size() * sizeof(T);
}

}  // namespace

uint64_t ClusterSums::memory_bytes() const {
  return Bytes(row_begin) + Bytes(centroids) + Bytes(mean_values) + Bytes(log_count) +
         Bytes(deviation) + Bytes(deviation_limit) + Bytes(radius);
}

size_t Segment::FindRow(int64_t position) const {
  ATTIC_CHECK(position >= begin_position && position < end_position());
  const auto offset = static_cast<uint16_t>(position - begin_position);
  const auto row = std::find(row_position.begin(), row_position.end(), offset);
  return static_cast<size_t>(row - row_position.begin());
}

std::vector<uint32_t> Segment::RowsByPosition() const {
  std::vector<uint32_t> rows(tokens);
  for (uint32_t row = 0; row < tokens; ++row) rows[row_position[row]] = row;
  return rows;
}

// Empty clusters begin where the next one does.
size_t Segment::cluster_of_row(size_t row) const {
  const std::vector<uint32_t>& begin = clusters.row_begin;
  return static_cast<size_t>(std::upper_bound(begin.begin(), begin.end(), row) - begin.begin() - 1);
}

Segment::Rows Segment::RowsInRange(size_t cluster, PositionRange range) const {
  const auto* begin = row_position.data() + clusters.row_begin[cluster];
  const auto* end = row_position.data() + clusters.row_begin[cluster + 1];
  if (begin == end) return {clusters.row_begin[cluster], clusters.row_begin[cluster]};
  if (begin_position + *begin >= range.begin && begin_position + *(end - 1) < range.end) {
    return {clusters.row_begin[cluster], clusters.row_begin[cluster + 1]};
  }
  const auto at = [&](int64_t position) {
    const int64_t offset = position - begin_position;
    return std::partition_point(begin, end, [&](uint16_t p) { return int64_t{p} < offset; });
  };
  const auto* first = at(range.begin);
  const auto* last = std::max(first, at(range.end));
  return {static_cast<uint32_t>(first - row_position.data()),
          static_cast<uint32_t>(last - row_position.data())};
}

uint64_t Segment::summaries_bytes() const {
  return clusters.memory_bytes() + super_clusters.memory_bytes() + Bytes(row_position) +
         Bytes(super_cluster_begin);
}

}  // namespace attic
