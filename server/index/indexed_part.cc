#include "server/index/indexed_part.h"

#include "base/check.h"

namespace attic {
namespace {

// Calls f on every array of `arrays`.
template <typename Arrays, typename F>
void ForEachArray(Arrays& arrays, const F& f) {
  f(arrays.centroids);
  f(arrays.super_centroids);
  f(arrays.super_mean_values);
  f(arrays.super_log_count);
  f(arrays.super_deviation);
  f(arrays.super_deviation_limit);
}

}  // namespace

void SummaryTables::Append(const Segment& segment) {
  const ClusterSums& supers = segment.super_clusters;
  arrays_.centroids.Append(segment.clusters.centroids);
  arrays_.super_centroids.Append(supers.centroids);
  arrays_.super_mean_values.Append(supers.mean_values);
  arrays_.super_log_count.Append(supers.log_count);
  arrays_.super_deviation.Append(supers.deviation);
  arrays_.super_deviation_limit.Append(supers.deviation_limit);
}

void SummaryTables::Truncate(size_t segments, size_t segments_held) {
  if (segments >= segments_held) return;
  ForEachArray(arrays_,
               [&](auto& array) { array.Truncate(array.size() / segments_held * segments); });
}

SummaryTables SummaryTables::Prefix(size_t segments, size_t segments_held) const {
  ATTIC_CHECK(segments <= segments_held);
  SummaryTables prefix;
  if (segments == 0) return prefix;
  const auto take = [&](const auto& from, auto& to) {
    to = from.Prefix(from.size() / segments_held * segments);
  };
  take(arrays_.centroids, prefix.arrays_.centroids);
  take(arrays_.super_centroids, prefix.arrays_.super_centroids);
  take(arrays_.super_mean_values, prefix.arrays_.super_mean_values);
  take(arrays_.super_log_count, prefix.arrays_.super_log_count);
  take(arrays_.super_deviation, prefix.arrays_.super_deviation);
  take(arrays_.super_deviation_limit, prefix.arrays_.super_deviation_limit);
  return prefix;
}

SummaryViews SummaryTables::Views() const {
  return {arrays_.centroids.view(),         arrays_.super_centroids.view(),
          arrays_.super_mean_values.view(), arrays_.super_log_count.view(),
          arrays_.super_deviation.view(),   arrays_.super_deviation_limit.view()};
}

uint64_t SummaryTables::memory_bytes() const {
  uint64_t bytes = 0;
  ForEachArray(arrays_, [&](const auto& array) { bytes += array.capacity_bytes(); });
  return bytes;
}

}  // namespace attic
