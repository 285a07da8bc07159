#include "server/index/search/indexed_attention.h"

#include <algorithm>
#include <cmath>

#include "attention/vector_kernels.h"
#include "server/index/search/deadline.h"
#include "server/index/search/descent.h"
#include "server/index/search/descent_answer.h"
#include "server/index/search/selection.h"

namespace attic {
namespace {

void ScanRows(const VectorsView& keys, const VectorsView& values, SearchScratch& scratch,
              ReadStatistics& read) {
  if (keys.count == 0) return;
  ScanExact(scratch.queries.data(), 1.0f, keys, values, scratch.accumulators, scratch.scan);
  read.exact_tokens += keys.count;
  read.bytes_read += keys.bytes() + values.bytes();
}

// The rows of clusters that the range cuts.
bool ScanPartial(const IndexedPart& part, PositionRange range, SearchScratch& scratch,
                 ReadStatistics& read) {
  DescentState& state = scratch.descent;
  for (const uint32_t node : state.partial) {
    const size_t cluster = node % part.clusters_per_segment;
    const Segment& segment = part.segment_of_node(node);
    const Segment::Rows rows = segment.RowsInRange(cluster, range);
    if (rows.begin == rows.end) continue;
    const ClusterRow first{node, rows.begin - segment.clusters.row_begin[cluster]};
    if (!state.rows.Fetch({&first, 1}, read)) return false;
    const size_t count = rows.end - rows.begin;
    ScanRows({state.rows.key(first), segment.element_type, count, segment.head_dim},
             {state.rows.value(first), segment.element_type, count, segment.value_dim}, scratch,
             read);
  }
  return true;
}

// The length of the output as the super-clusters say, by which errors are measured.
void EstimateLengths(const IndexedPart& part, SearchScratch& scratch, ReadStatistics& read) {
  DescentState& state = scratch.descent;
  scratch.trial = scratch.accumulators;
  ReadStatistics ignored;
  AddSuperClusters(part, scratch.queries, state, scratch.trial, scratch.answer, ignored);
  read.bytes_read += ignored.bytes_read;
  for (size_t g = 0; g < scratch.trial.size(); ++g) {
    const AttentionAccumulator& trial = scratch.trial[g];
    const std::span<const float> numerator = trial.numerator();
    const double length = Dot(numerator.data(), numerator.data(), numerator.size());
    state.coarse_square[g] =
        static_cast<float>(length / std::max(trial.denominator() * trial.denominator(), 1e-30));
  }
}

}  // namespace

float LogSumExpOf(const AttentionAccumulator& accumulator) {
  if (accumulator.denominator() <= 0) return kEmptyLogSumExp;
  return accumulator.max_logit() + static_cast<float>(std::log(accumulator.denominator()));
}

IndexedAnswer AttendIndexed(const IndexedPart& part, PositionRange range,
                            const SelectionPolicy& policy, absl::Time deadline,
                            SearchScratch& scratch, ReadStatistics& read) {
  const size_t group = scratch.accumulators.size();
  DescentState& state = scratch.descent;
  const DescentRequest request{
      .queries = scratch.queries, .range = range, .helpers = scratch.helpers};
  Descent descent(part, request, state, read);
  descent.Begin();
  IndexedAnswer answer;
  if (!ScanPartial(part, range, scratch, read)) {
    answer.status = descent.status();
    return answer;
  }
  state.other_log_mass.resize(group);
  for (size_t g = 0; g < group; ++g) {
    state.other_log_mass[g] =
        LogAddExp(LogSumExpOf(scratch.accumulators[g]), scratch.tail.log_mass(g));
  }
  descent.UpdateTotals();
  answer.in_time = !DeadlineIsNear(deadline);
  if (answer.in_time) LookForHiddenKeys(policy, part, descent);
  const bool best_keys =
      policy.goal == SelectionGoal::kTopK || policy.goal == SelectionGoal::kInnerProductRange;
  if (best_keys || !descent.IsSettled()) {
    EstimateLengths(part, scratch, read);
    descent.WeighDoubts();
    answer.in_time = answer.in_time && !DeadlineIsNear(deadline) &&
                     ReadUntilMet(policy, part, deadline, descent);
  }
  answer.status = descent.status();
  if (!answer.status.ok()) return answer;
  scratch.tail.Add(scratch.accumulators, read);
  AddDescent(part, scratch.queries, state, scratch.accumulators, scratch.answer, read);
  answer.exact_share = state.exact_share;
  // What such queries ordinarily find in hidden keys may be missing.
  const double hidden = state.keys_may_hide ? part.calibration.hidden_mass : 0.0;
  for (double& share : answer.exact_share) share *= 1 - hidden;
  for (size_t g = 0; g < group; ++g) {
    answer.squared_error.push_back(
        (part.calibration.errors.Bound(state.doubt[g]) + hidden * hidden) / state.scale[g]);
  }
  return answer;
}

bool AttendSegmentExactly(const IndexedPart& part, size_t segment_index, PositionRange range,
                          SearchScratch& scratch, ReadStatistics& read) {
  const Segment& segment = *part.segments[segment_index];
  if (range.begin >= segment.end_position() || range.end <= segment.begin_position) return true;
  const VectorArrays* arrays = scratch.descent.rows.Arrays(segment_index, read);
  if (arrays == nullptr) return false;
  const VectorsView keys = segment.key_rows(*arrays), values = segment.value_rows(*arrays);
  if (range.begin <= segment.begin_position && range.end >= segment.end_position()) {
    ScanRows(keys, values, scratch, read);
    return true;
  }
  for (size_t cluster = 0; cluster < segment.clusters.count; ++cluster) {
    const Segment::Rows rows = segment.RowsInRange(cluster, range);
    const size_t count = rows.end - rows.begin;
    ScanRows(keys.rows(rows.begin, count), values.rows(rows.begin, count), scratch, read);
  }
  return true;
}

}  // namespace attic
