#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/bench/found_keys_attention.h"
#include "client/cli/bench/measured_indexes.h"
#include "client/cli/bench/stopwatch.h"
#include "client/cli/progress.h"
#include "client/cli/text_format.h"
#include "server/index/graph/query_aware_graph.h"

namespace attic::cli {
namespace {

struct FoundKeys {
  std::vector<ScoredNode> nodes;
  uint64_t keys_read = 0;
  uint64_t links_read = 0;  // 0 where it is not known
};

// Puts every test query to `search`(query, found), attends over the keys it found, and measures.
template <class Search>
IndexMeasurement MeasureSearch(const BenchData& data, const ExactAnswers& exact, Search search) {
  IndexMeasurement measured;
  FoundKeysAttention attention;
  FoundKeys found;
  std::vector<uint32_t> nodes;
  std::vector<float> output(data.value_dim());
  std::vector<double> milliseconds;
  Mean recall, keys_share, bytes_share, covered, error;
  const VectorsView keys = data.keys.view();
  const VectorsView values = data.values.view();
  for (size_t i = 0; i < data.test_count(); ++i) {
    found.keys_read = found.links_read = 0;
    const Stopwatch watch;
    search(data.test_query(i), found);
    const double log_sum_exp = attention.Attend(found.nodes, data.logit_scale, values, output);
    milliseconds.push_back(watch.milliseconds());
    nodes.clear();
    for (const ScoredNode& node : found.nodes) nodes.push_back(node.node);
    recall.Add(Recall(data, exact, i, nodes));
    const uint64_t bytes = found.keys_read * keys.row_bytes() +
                           found.nodes.size() * values.row_bytes() +
                           found.links_read * sizeof(uint32_t);
    keys_share.Add(static_cast<double>(found.keys_read) / keys.count);
    bytes_share.Add(static_cast<double>(bytes) / (keys.bytes() + values.bytes()));
    covered.Add(std::exp(log_sum_exp - exact.log_sum_exp[i]));
    error.Add(OutputError(data, exact, i, output));
  }
  measured.recall = recall.value();
  measured.keys_share = keys_share.value();
  measured.bytes_share = bytes_share.value();
  measured.coverage_true = covered.value();
  measured.output_error = error.value();
  measured.query_ms = Median(milliseconds);
  return measured;
}

IndexMeasurement MeasureQueryAware(const BenchData& data, const ExactAnswers& exact,
                                   const QueryAwareGraph& graph, size_t ef) {
  GraphSearchScratch scratch;
  return MeasureSearch(data, exact, [&](const float* query, FoundKeys& found) {
    const uint64_t links_before = scratch.links_read;
    graph.Search(query, data.keys.view(), ef, scratch, found.nodes, found.keys_read);
    found.links_read = scratch.links_read - links_before;
  });
}

IndexMeasurement MeasurePlain(const BenchData& data, const ExactAnswers& exact,
                              const QueryAwareGraphBuilder& builder, size_t ef) {
  return MeasureSearch(data, exact, [&](const float* query, FoundKeys& found) {
    found.nodes = builder.SearchPlainHnsw(query, ef, ef, &found.keys_read);
  });
}

}  // namespace

absl::StatusOr<std::vector<IndexMeasurement>> MeasureGraphs(const BenchData& data,
                                                            const ExactAnswers& exact,
                                                            const std::vector<size_t>& widths,
                                                            bool show_progress) {
  GraphOptions options;
  options.copy_rows = true;  // plain hnswlib keeps them
  options.training_queries_max = std::max<size_t>(1, data.train_count());
  QueryAwareGraphBuilder builder(data.head_dim(), options);
  const Stopwatch insert_watch;
  {
    ProgressBar progress("graph", static_cast<int64_t>(data.key_count()), "keys", show_progress);
    ATTIC_RETURN_IF_ERROR(builder.Insert(
        data.keys.view(), [&](size_t count) { progress.Update(static_cast<int64_t>(count)); }));
  }
  const double insert_seconds = insert_watch.seconds();
  const Stopwatch publish_watch;
  ATTIC_ASSIGN_OR_RETURN(const std::shared_ptr<const QueryAwareGraph> graph,
                         builder.Publish(data.keys.view(), data.train));
  const double publish_seconds = publish_watch.seconds();

  std::vector<IndexMeasurement> query_aware, plain;
  for (const size_t ef : widths) {
    IndexMeasurement measured = MeasureQueryAware(data, exact, *graph, ef);
    measured.index = "query-aware graph";
    measured.setting = absl::StrCat("ef ", ef);
    measured.build_seconds = insert_seconds + publish_seconds;
    query_aware.push_back(std::move(measured));
    measured = MeasurePlain(data, exact, builder, ef);
    measured.index = "hnswlib";
    measured.setting = absl::StrCat("ef ", ef);
    measured.build_seconds = insert_seconds;
    plain.push_back(std::move(measured));
  }
  std::vector<IndexMeasurement> all = std::move(query_aware);
  all.insert(all.end(), plain.begin(), plain.end());
  return all;
}

}  // namespace attic::cli
