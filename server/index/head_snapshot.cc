#include "server/index/head_snapshot.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention/exact_attention.h"
#include "attention/vector_kernels.h"
#include "base/check.h"
#include "base/status_macros.h"
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

absl::Status IndexedHeadSnapshot::Attend(const HeadRequest& request, SearchScratch& scratch,
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
    ATTIC_ASSIGN_OR_RETURN(rest, AttendSegments(rest, deadline, scratch, answer.read));
  }
  if (rest.begin >= rest.end) {
    FinishAnswer(shape, scratch, answer);
    return absl::OkStatus();
  }
  // In exact mode something is left only when time ran out: then it is estimated.
  const IndexedAnswer indexed =
      AttendIndexed(*part_, rest, request.selection, deadline, scratch, answer.read);
  ATTIC_RETURN_IF_ERROR(indexed.status);
  answer.degraded = !indexed.in_time;
  FinishAnswer(shape, scratch, answer);
  FinishEstimate(shape, indexed, answer);
  return absl::OkStatus();
}

// Returns what was left of `rest` when the deadline came near.
absl::StatusOr<PositionRange> IndexedHeadSnapshot::AttendSegments(PositionRange rest,
                                                                  absl::Time deadline,
                                                                  SearchScratch& scratch,
                                                                  ReadStatistics& read) const {
  RowReader& rows = scratch.descent.rows;
  rows.Begin(*part_);
  for (size_t i = 0; i < part_->segments.size(); ++i) {
    const int64_t end = part_->segments[i]->end_position();
    if (rest.begin >= rest.end || DeadlineIsNear(deadline)) break;
    if (end <= rest.begin) continue;
    if (!AttendSegmentExactly(*part_, i, rest, scratch, read)) return rows.status();
    rest.begin = end;
  }
  return rest;
}

void IndexedHeadSnapshot::AttendTailExactly(PositionRange range, SearchScratch& scratch,
                                            ReadStatistics& read) const {
  tail_.ForEachRun(range, [&](int64_t, const VectorsView& keys, const VectorsView& values) {
    ScanExact(scratch.queries.data(), 1.0f, keys, values, scratch.accumulators, scratch.scan);
    read.exact_tokens += keys.count;
    read.bytes_read += keys.bytes() + values.bytes();
  });
}

absl::Status IndexedHeadSnapshot::Search(const HeadRequest& request, size_t k,
                                         SearchScratch& scratch,
                                         std::vector<std::vector<SearchHit>>& hits,
                                         ReadStatistics& read) const {
  const HeadShape& shape = part_->shape;
  ATTIC_CHECK(request.queries.size() == size_t{shape.group} * shape.head_dim);
  const PositionRange range = Clip(request.range);
  read = {};
  read.tokens = static_cast<uint64_t>(range.end - range.begin);
  const SearchParameters search{request.queries, shape.group, range, k};
  if (ScansExactly(range, request.mode)) {
    return SearchExactly(*part_, tail_, search, scratch, hits, read);
  }
  ATTIC_RETURN_IF_ERROR(SearchIndexed(*part_, tail_, search, scratch, hits, read));
  const size_t wanted = std::min<size_t>(k, read.tokens);
  for (const auto& found : hits) {
    if (found.size() < wanted) {
      return SearchExactly(*part_, tail_, search, scratch, hits, read);
    }
  }
  return absl::OkStatus();
}

absl::Status IndexedHeadSnapshot::CopyVectors(std::span<const int64_t> positions, std::byte* keys,
                                              std::byte* values) const {
  const size_t element = ElementBytes(part_->shape.element_type);
  const size_t key_bytes = part_->shape.head_dim * element;
  const size_t value_bytes = part_->shape.value_dim * element;
  RowReader reader;
  reader.Begin(*part_);
  std::vector<ClusterRow> rows;
  for (const int64_t position : positions) {
    ATTIC_CHECK(position >= 0 && position < token_count());
    if (position < tail_.begin_position()) rows.push_back(part_->RowOf(position));
  }
  ReadStatistics read;
  if (!reader.Fetch(rows, read)) return reader.status();
  size_t found = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    std::byte* key = keys + i * key_bytes;
    std::byte* value = values + i * value_bytes;
    if (positions[i] >= tail_.begin_position()) {
      tail_.Copy({positions[i], positions[i] + 1}, key, value);
      continue;
    }
    std::memcpy(key, reader.key(rows[found]), key_bytes);
    std::memcpy(value, reader.value(rows[found]), value_bytes);
    ++found;
  }
  return absl::OkStatus();
}

absl::Status IndexedHeadSnapshot::CopyRange(PositionRange range, std::byte* keys,
                                            std::byte* values) const {
  ATTIC_CHECK(range.begin >= 0 && range.begin <= range.end && range.end <= token_count());
  const size_t element = ElementBytes(part_->shape.element_type);
  const size_t key_bytes = part_->shape.head_dim * element;
  const size_t value_bytes = part_->shape.value_dim * element;
  for (const auto& segment : part_->segments) {
    const int64_t begin = std::max(range.begin, segment->begin_position);
    const int64_t end = std::min(range.end, segment->end_position());
    if (begin >= end) continue;
    ATTIC_ASSIGN_OR_RETURN(const auto arrays, segment->vectors->ArraysOrRead());
    const std::vector<uint32_t> rows = segment->RowsByPosition();
    for (int64_t p = begin; p < end; ++p, keys += key_bytes, values += value_bytes) {
      const size_t row = rows[static_cast<size_t>(p - segment->begin_position)];
      std::memcpy(keys, arrays->keys.data() + row * key_bytes, key_bytes);
      std::memcpy(values, arrays->values.data() + row * value_bytes, value_bytes);
    }
  }
  const int64_t begin = std::max(range.begin, tail_.begin_position());
  if (begin < range.end) tail_.Copy({begin, range.end}, keys, values);
  return absl::OkStatus();
}

void SearchScratchDeleter::operator()(SearchScratch* scratch) const { delete scratch; }

SearchScratchPtr MakeSearchScratch(ThreadPool* helpers) {
  return SearchScratchPtr(new SearchScratch(helpers));
}

}  // namespace attic
