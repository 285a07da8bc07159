#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "client/cli/bench/measured_indexes.h"
#include "client/cli/bench/stopwatch.h"
#include "client/cli/progress.h"
#include "client/cli/text_format.h"
#include "server/index/head_index.h"

namespace attic::cli {
namespace {

constexpr size_t kAppendTokens = 16384;
// Short inputs get shorter segments, so that there are some; the rest would be scanned as the tail.
constexpr int64_t kSegmentsMin = 4;
constexpr int64_t kSegmentTokensMin = 256;

std::unique_ptr<HeadIndex> MakeIndex(const BenchData& data) {
  const HeadShape shape{.head_dim = static_cast<uint32_t>(data.head_dim()),
                        .value_dim = static_cast<uint32_t>(data.value_dim()),
                        .group = 1,
                        .element_type = data.keys.header.type,
                        .logit_scale = static_cast<float>(data.logit_scale)};
  IndexOptions options;
  options.exact_scan_tokens_max = 0;
  options.segment_tokens =
      std::min(options.segment_tokens,
               std::max<int64_t>(kSegmentTokensMin, data.key_count() / kSegmentsMin));
  return HeadIndex::Create(shape, options);
}

absl::Status Build(const BenchData& data, bool show_progress, HeadIndex& index) {
  index.AddTrainingQueries(data.train);
  const VectorsView keys = data.keys.view();
  const VectorsView values = data.values.view();
  for (size_t begin = 0; begin < keys.count; begin += kAppendTokens) {
    const size_t count = std::min(kAppendTokens, keys.count - begin);
    index.Append(keys.rows(begin, count), values.rows(begin, count));
  }
  ProgressBar progress("clusters", static_cast<int64_t>(keys.count), "keys", show_progress);
  bool built = true;
  while (built) {
    ATTIC_ASSIGN_OR_RETURN(built, index.BuildNext());
    progress.Update(index.Snapshot()->indexed_tokens());
  }
  return absl::OkStatus();
}

struct Totals {
  Mean keys_share;
  Mean bytes_share;
  std::vector<double> milliseconds;

  void Add(const BenchData& data, const ReadStatistics& read, double elapsed_ms) {
    const auto scored = static_cast<double>(read.exact_tokens + read.estimated_clusters +
                                            read.estimated_super_clusters + read.graph_visits);
    keys_share.Add(scored / data.key_count());
    bytes_share.Add(static_cast<double>(read.bytes_read) /
                    (data.keys.header.data_bytes() + data.values.header.data_bytes()));
    milliseconds.push_back(elapsed_ms);
  }
};

IndexMeasurement MeasureAttend(const BenchData& data, const ExactAnswers& exact,
                               const HeadSnapshot& snapshot) {
  IndexMeasurement measured{.index = "clustered", .setting = "attend"};
  const SearchScratchPtr scratch = MakeSearchScratch();
  HeadAnswer answer;
  Totals totals;
  Mean estimated, covered, error;
  for (size_t i = 0; i < data.test_count(); ++i) {
    const Stopwatch watch;
    ATTIC_CHECK(
        snapshot.Attend({.queries = {data.test_query(i), data.head_dim()}}, *scratch, answer).ok());
    totals.Add(data, answer.read, watch.milliseconds());
    error.Add(OutputError(data, exact, i, answer.output));
    estimated.Add(answer.coverage[0]);
    // coverage is exact mass over (exact + estimated) mass, and log_sum_exp is the log of the
    // latter: their product is the exact mass, which the true total turns into the true coverage.
    covered.Add(answer.coverage[0] * std::exp(answer.log_sum_exp[0] - exact.log_sum_exp[i]));
  }
  measured.keys_share = totals.keys_share.value();
  measured.bytes_share = totals.bytes_share.value();
  measured.coverage_estimated = estimated.value();
  measured.coverage_true = covered.value();
  measured.output_error = error.value();
  measured.query_ms = Median(totals.milliseconds);
  return measured;
}

IndexMeasurement MeasureSearch(const BenchData& data, const ExactAnswers& exact,
                               const HeadSnapshot& snapshot) {
  IndexMeasurement measured{.index = "clustered", .setting = absl::StrCat("search ", data.k)};
  const SearchScratchPtr scratch = MakeSearchScratch();
  std::vector<std::vector<SearchHit>> hits;
  Totals totals;
  Mean recall;
  for (size_t i = 0; i < data.test_count(); ++i) {
    ReadStatistics read;
    const Stopwatch watch;
    ATTIC_CHECK(snapshot
                    .Search({.queries = {data.test_query(i), data.head_dim()}}, data.k, *scratch,
                            hits, read)
                    .ok());
    totals.Add(data, read, watch.milliseconds());
    std::vector<uint32_t> found;
    for (const SearchHit& hit : hits[0]) found.push_back(static_cast<uint32_t>(hit.position));
    recall.Add(Recall(data, exact, i, found));
  }
  measured.recall = recall.value();
  measured.keys_share = totals.keys_share.value();
  measured.bytes_share = totals.bytes_share.value();
  measured.query_ms = Median(totals.milliseconds);
  return measured;
}

}  // namespace

absl::StatusOr<std::vector<IndexMeasurement>> MeasureClustered(const BenchData& data,
                                                               const ExactAnswers& exact,
                                                               bool show_progress) {
  const Stopwatch watch;
  const std::unique_ptr<HeadIndex> index = MakeIndex(data);
  ATTIC_RETURN_IF_ERROR(Build(data, show_progress, *index));
  const double build_seconds = watch.seconds();
  const std::shared_ptr<const HeadSnapshot> snapshot = index->Snapshot();
  std::vector<IndexMeasurement> measured = {MeasureAttend(data, exact, *snapshot),
                                            MeasureSearch(data, exact, *snapshot)};
  for (IndexMeasurement& m : measured) m.build_seconds = build_seconds;
  return measured;
}

}  // namespace attic::cli
