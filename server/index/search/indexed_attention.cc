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

void ScanRows(const Segment& segment, size_t begin, size_t end, SearchScratch& scratch,
              ReadStatistics& read) {
  if (begin == end) return;
  const VectorsView keys = segment.key_rows().rows(begin, end - begin);
  const VectorsView values = segment.value_rows().rows(begin, end - begin);
  ScanExact(scratch.queries.data(), 1.0f, keys, values, scratch.accumulators, scratch.scan);
  read.exact_tokens += end - begin;
  read.bytes_read += keys.bytes() + values.bytes();
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
  for (const uint32_t node : state.partial) {
    const Segment& segment = part.segment_of_node(node);
    const Segment::Rows rows = segment.RowsInRange(node % part.clusters_per_segment, range);
    ScanRows(segment, rows.begin, rows.end, scratch, read);
  }
  state.other_log_mass.resize(group);
  for (size_t g = 0; g < group; ++g) {
    state.other_log_mass[g] =
        LogAddExp(LogSumExpOf(scratch.accumulators[g]), scratch.tail.log_mass(g));
  }
  descent.UpdateTotals();
  IndexedAnswer answer;
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

void AttendSegmentExactly(const Segment& segment, PositionRange range, SearchScratch& scratch,
                          ReadStatistics& read) {
  if (range.begin <= segment.begin_position && range.end >= segment.end_position()) {
    ScanRows(segment, 0, segment.tokens, scratch, read);
    return;
  }
  if (range.begin >= segment.end_position() || range.end <= segment.begin_position) return;
  for (size_t cluster = 0; cluster < segment.clusters.count; ++cluster) {
    const Segment::Rows rows = segment.RowsInRange(cluster, range);
    ScanRows(segment, rows.begin, rows.end, scratch, read);
  }
}

}  // namespace attic
