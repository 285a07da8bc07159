#include "server/index/indexed_part.h"

#include <algorithm>

#include "base/check.h"

namespace attic {
namespace {

// Calls f on every array to which all segments add equally many elements.
template <typename Arrays, typename F>
void ForEachEvenArray(Arrays& arrays, const F& f) {
  f(arrays.centroids);
  f(arrays.super_centroids);
  f(arrays.super_mean_values);
  f(arrays.super_log_count);
  f(arrays.super_deviation);
  f(arrays.super_deviation_limit);
  f(arrays.super_radius);
  f(arrays.super_block);
}

}  // namespace

void SummaryTables::Append(const Segment& segment, bool centroids) {
  const ClusterSums& supers = segment.super_clusters;
  if (centroids) arrays_.centroids.Append(segment.clusters.centroids);
  arrays_.super_centroids.Append(supers.centroids);
  arrays_.super_mean_values.Append(supers.mean_values);
  arrays_.super_log_count.Append(supers.log_count);
  arrays_.super_deviation.Append(supers.deviation);
  arrays_.super_deviation_limit.Append(supers.deviation_limit);
  const SignCodes& codes = segment.codes;
  std::vector<uint32_t> super_block(codes.group_block.begin(), codes.group_block.end() - 1);
  for (uint32_t& block : super_block) block += static_cast<uint32_t>(arrays_.block_radius.size());
  arrays_.super_radius.Append(codes.GroupRadii());
  arrays_.super_block.Append(super_block);
  arrays_.block_radius.Append(codes.radius);
  arrays_.block_factor.Append(codes.factor);
}

void SummaryTables::Truncate(size_t segments, size_t segments_held) {
  if (segments >= segments_held) return;
  const size_t blocks = BlocksOf(segments, segments_held);
  ForEachEvenArray(arrays_,
                   [&](auto& array) { array.Truncate(array.size() / segments_held * segments); });
  arrays_.block_radius.Truncate(blocks);
  arrays_.block_factor.Truncate(blocks);
}

size_t SummaryTables::BlocksOf(size_t segments, size_t segments_held) const {
  if (segments == segments_held) return arrays_.block_radius.size();
  return arrays_.super_block.view().data()[arrays_.super_block.size() / segments_held * segments];
}

SummaryTables SummaryTables::Prefix(size_t segments, size_t segments_held) const {
  ATTIC_CHECK(segments <= segments_held);
  SummaryTables prefix;
  if (segments == 0) return prefix;
  prefix.arrays_ = arrays_;
  ForEachEvenArray(prefix.arrays_, [&](auto& array) {
    array = array.Prefix(array.size() / segments_held * segments);
  });
  const size_t blocks = BlocksOf(segments, segments_held);
  prefix.arrays_.block_radius = arrays_.block_radius.Prefix(blocks);
  prefix.arrays_.block_factor = arrays_.block_factor.Prefix(blocks);
  return prefix;
}

SummaryViews SummaryTables::Views() const {
  return {arrays_.centroids.view(),         arrays_.super_centroids.view(),
          arrays_.super_mean_values.view(), arrays_.super_log_count.view(),
          arrays_.super_deviation.view(),   arrays_.super_deviation_limit.view(),
          arrays_.super_radius.view(),      arrays_.super_block.view(),
          arrays_.block_radius.view(),      arrays_.block_factor.view()};
}

uint64_t SummaryTables::memory_bytes() const {
  uint64_t bytes = 0;
  ForEachEvenArray(arrays_, [&](const auto& array) { bytes += array.capacity_bytes(); });
  return bytes + arrays_.block_radius.capacity_bytes() + arrays_.block_factor.capacity_bytes();
}

ClusterRow IndexedPart::RowOf(int64_t position) const {
  const auto after =
      std::upper_bound(segments.begin(), segments.end(), position,
                       [](int64_t p, const auto& segment) { return p < segment->end_position(); });
  ATTIC_CHECK(after != segments.end());
  const Segment& segment = **after;
  const size_t row = segment.FindRow(position);
  const size_t cluster = segment.cluster_of_row(row);
  const auto first = static_cast<size_t>(after - segments.begin()) * clusters_per_segment;
  return {static_cast<uint32_t>(first + cluster),
          static_cast<uint32_t>(row - segment.clusters.row_begin[cluster])};
}

bool IndexedPart::AllResident() const {
  return std::all_of(segments.begin(), segments.end(),
                     [](const auto& segment) { return segment->vectors->resident(); });
}

bool IndexedPart::ScanIsBetter(const SelectionPolicy& selection) const {
  if (!options.exact_when_better) return false;
  switch (selection.goal) {
    case SelectionGoal::kDefault:
    case SelectionGoal::kMaxError: {
      const bool asked = selection.goal == SelectionGoal::kMaxError;
      const double error = asked ? selection.amount : options.max_error;
      // Was faster in memory: from disk no scan is.
      return error <= calibration.least_error ||
             (error <= calibration.scan_faster_below && AllResident());
    }
    case SelectionGoal::kCoverage:
      return selection.amount > calibration.coverage_max;
    default:
      return false;
  }
}

}  // namespace attic
