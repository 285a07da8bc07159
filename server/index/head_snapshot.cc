#include "server/index/head_snapshot.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention/exact_attention.h"
#include "attention/vector_kernels.h"
#include "base/check.h"
#include "server/index/search/deadline.h"
#include "server/index/search/indexed_attention.h"
#include "server/index/search/indexed_search.h"

namespace attic {
namespace {

void PrepareScratch(const HeadShape& shape, std::span<const float> queries,
                    SearchScratch& scratch) {
  scratch.queries.assign(queries.begin(), queries.end());
  for (float& x : scratch.queries) x *= shape.logit_scale;

  while (scratch.accumulators.size() > shape.group) scratch.accumulators.pop_back();
  while (scratch.accumulators.size() < shape.group) scratch.accumulators.emplace_back(0);
  for (size_t g = 0; g < shape.group; ++g) {
    scratch.accumulators[g].Reset(shape.value_dim);
  }
}

void FinishAnswer(const HeadShape& shape, const SearchScratch& scratch, HeadAnswer& answer) {
  answer.coverage.assign(shape.group, 1.0f);
  for (size_t g = 0; g < shape.group; ++g) {
    const std::span<float> output(answer.output.data() + g * shape.value_dim, shape.value_dim);
    answer.log_sum_exp[g] = scratch.accumulators[g].Finish(output);
  }
}

// What was not read exactly: coverage, and the estimated error in terms of the output's length.
void FinishEstimate(const HeadShape& shape, const IndexedAnswer& indexed, HeadAnswer& answer) {
  constexpr double kErrorMax = 1.0;  // an answer of nothing would do no worse
  for (size_t g = 0; g < shape.group; ++g) {
    const float* output = answer.output.data() + g * shape.value_dim;
    const double square = std::max<double>(Dot(output, output, shape.value_dim), 1e-30);
    answer.coverage[g] = static_cast<float>(std::clamp(indexed.exact_share[g], 0.0, 1.0));
    answer.error[g] =
        static_cast<float>(std::min(kErrorMax, std::sqrt(indexed.squared_error[g] / square)));
  }
}

}  // namespace

IndexedHeadSnapshot::IndexedHeadSnapshot(std::shared_ptr<const IndexedPart> part, TailView tail)
    : part_(std::move(part)), tail_(std::move(tail)) {
  ATTIC_CHECK(part_->token_count() == tail_.begin_position());
}

PositionRange IndexedHeadSnapshot::Clip(PositionRange range) const {
  const int64_t begin = std::clamp<int64_t>(range.begin, 0, token_count());
  return {begin, std::clamp<int64_t>(range.end, begin, token_count())};
}

bool IndexedHeadSnapshot::ScansExactly(PositionRange range, AttendMode mode) const {
  return mode == AttendMode::kExact || part_->segments.empty() ||
         range.end - range.begin <= part_->options.exact_scan_tokens_max;
}

void IndexedHeadSnapshot::Attend(const HeadRequest& request, SearchScratch& scratch,
                                 HeadAnswer& answer) const {
  const HeadShape& shape = part_->shape;
  const absl::Time deadline = request.deadline;
  ATTIC_CHECK(request.queries.size() == size_t{shape.group} * shape.head_dim);
  const PositionRange range = Clip(request.range);
  answer.output.resize(size_t{shape.group} * shape.value_dim);
  answer.log_sum_exp.resize(shape.group);
  answer.degraded = false;
  answer.read = {};
  answer.read.tokens = static_cast<uint64_t>(range.end - range.begin);
  answer.error.assign(shape.group, 0.0f);
  PrepareScratch(shape, request.queries, scratch);
  PositionRange rest{range.begin, std::min(range.end, part_->token_count())};
  const bool exact = ScansExactly(range, request.mode) || part_->ScanIsBetter(request.selection);
  if (!exact && rest.begin < rest.end) {
    scratch.tail.Score(tail_, range, scratch.queries, shape.group, answer.read);
  } else {
    scratch.tail.Clear(shape.group);
    AttendTailExactly(range, scratch, answer.read);
  }
  if (exact) {
    for (const auto& segment : part_->segments) {
      if (rest.begin >= rest.end || DeadlineIsNear(deadline)) break;
      if (segment->end_position() <= rest.begin) continue;
      AttendSegmentExactly(*segment, rest, scratch, answer.read);
      rest.begin = segment->end_position();
    }
  }
  if (rest.begin >= rest.end) {
    FinishAnswer(shape, scratch, answer);
    return;
  }
  // In exact mode something is left only when time ran out: then it is estimated.
  const IndexedAnswer indexed =
      AttendIndexed(*part_, rest, request.selection, deadline, scratch, answer.read);
  answer.degraded = !indexed.in_time;
  FinishAnswer(shape, scratch, answer);
  FinishEstimate(shape, indexed, answer);
}

void IndexedHeadSnapshot::AttendTailExactly(PositionRange range, SearchScratch& scratch,
                                            ReadStatistics& read) const {
  tail_.ForEachRun(range, [&](int64_t, const VectorsView& keys, const VectorsView& values) {
    ScanExact(scratch.queries.data(), 1.0f, keys, values, scratch.accumulators, scratch.scan);
    read.exact_tokens += keys.count;
    read.bytes_read += keys.bytes() + values.bytes();
  });
}

void IndexedHeadSnapshot::Search(const HeadRequest& request, size_t k, SearchScratch& scratch,
                                 std::vector<std::vector<SearchHit>>& hits,
                                 ReadStatistics& read) const {
  const HeadShape& shape = part_->shape;
  ATTIC_CHECK(request.queries.size() == size_t{shape.group} * shape.head_dim);
  const PositionRange range = Clip(request.range);
  read = {};
  read.tokens = static_cast<uint64_t>(range.end - range.begin);
  const SearchParameters search{request.queries, shape.group, range, k};
  if (ScansExactly(range, request.mode)) {
    SearchExactly(*part_, tail_, search, scratch, hits, read);
    return;
  }
  SearchIndexed(*part_, tail_, search, scratch, hits, read);
  const size_t wanted = std::min<size_t>(k, read.tokens);
  for (const auto& found : hits) {
    if (found.size() < wanted) {
      SearchExactly(*part_, tail_, search, scratch, hits, read);
      return;
    }
  }
}

void IndexedHeadSnapshot::CopyVectors(int64_t position, std::byte* key, std::byte* value) const {
  ATTIC_CHECK(position >= 0 && position < token_count());
  if (position >= tail_.begin_position()) {
    tail_.Copy({position, position + 1}, key, value);
    return;
  }
  const auto after =
      std::upper_bound(part_->segments.begin(), part_->segments.end(), position,
                       [](int64_t p, const auto& segment) { return p < segment->end_position(); });
  const Segment& segment = **after;
  const size_t row = segment.FindRow(position);
  std::memcpy(key, segment.key_rows().row(row), segment.key_rows().row_bytes());
  std::memcpy(value, segment.value_rows().row(row), segment.value_rows().row_bytes());
}

void SearchScratchDeleter::operator()(SearchScratch* scratch) const { delete scratch; }

SearchScratchPtr MakeSearchScratch(ThreadPool* helpers) {
  return SearchScratchPtr(new SearchScratch(helpers));
}

}  // namespace attic
