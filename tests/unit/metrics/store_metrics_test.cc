// What a store exports is what server/metrics/METRICS.md says.
#include "server/metrics/store_metrics.h"

#include <gtest/gtest.h>
#include <prometheus/metric_family.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>

#include "server/metrics/node_metrics.h"

namespace attic {
namespace {

struct Described {
  std::string type;
  std::set<std::string> labels;
  bool operator==(const Described&) const = default;
};

void PrintTo(const Described& metric, std::ostream* out) {
  *out << metric.type << " with";
  for (const std::string& label : metric.labels) *out << ' ' << label;
}

std::string TypeName(prometheus::MetricType type) {
  switch (type) {
    case prometheus::MetricType::Counter:
      return "counter";
    case prometheus::MetricType::Gauge:
      return "gauge";
    case prometheus::MetricType::Histogram:
      return "histogram";
    default:
      return "other";
  }
}

std::map<std::string, Described> Documented() {
  std::ifstream file("server/metrics/METRICS.md");
  const std::regex row(R"(\| `(\w+)` \| (\w+) \| ([\w, ]*)\|.*)");
  const std::regex word(R"(\w+)");
  std::map<std::string, Described> metrics;
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, row)) continue;
    const std::string labels = match[3];
    Described& metric = metrics[match[1]];
    metric.type = match[2];
    for (std::sregex_iterator label(labels.begin(), labels.end(), word), end; label != end;
         ++label) {
      metric.labels.insert(label->str());
    }
  }
  return metrics;
}

std::vector<prometheus::MetricFamily> Written(const StoreStatus& status, const CallMetrics& calls) {
  MetricWriter writer;
  WriteStatus(status, writer);
  WriteActivity({}, writer);
  WriteCalls(calls, writer);
  // A node that is in its map has all that nodes export.
  ClusterMap map;
  map.nodes = {{.id = "a"}};
  WriteNode({.node_id = "a", .map = std::make_shared<const ClusterMap>(map), .etcd = EtcdCalls{}},
            writer);
  return writer.Take();
}

TEST(StoreMetricsTest, TheDocumentListsExactlyWhatIsExported) {
  const CallMetrics calls;
  std::map<std::string, Described> exported;
  for (const prometheus::MetricFamily& family : Written({}, calls)) {
    Described& metric = exported[family.name];
    metric.type = TypeName(family.type);
    EXPECT_FALSE(family.help.empty());
    ASSERT_FALSE(family.metric.empty());
    for (const auto& label : family.metric[0].label) metric.labels.insert(label.name);
    for (const auto& series : family.metric) {
      EXPECT_EQ(series.label.size(), metric.labels.size()) << family.name;
    }
  }
  EXPECT_EQ(exported, Documented());
}

// The sum over the series of `name` whose labels have `value`.
double Sum(const std::vector<prometheus::MetricFamily>& families, const std::string& name,
           const std::string& value = "") {
  double sum = 0;
  for (const auto& family : families) {
    for (const auto& series : family.metric) {
      const bool labelled = std::any_of(series.label.begin(), series.label.end(),
                                        [&](const auto& label) { return label.value == value; });
      if (family.name == name && (value.empty() || labelled)) {
        sum += series.gauge.value + series.counter.value;
      }
    }
  }
  return sum;
}

TEST(StoreMetricsTest, EveryNumberOfTheStatusIsUnderItsName) {
  const StoreStatus status = {.boot_id = "b",
                              .sessions = 4,
                              .tokens = 5,
                              .pending_segments = 6,
                              .threads = 7,
                              .uptime_seconds = 8.5,
                              .memory = {1, 2, 3, 10, 20, 100},
                              .damage = {{"a", "b"}, {"c", "d"}},
                              .disk_bytes = 9,
                              .cache_bytes = 11,
                              .cache_hits = 12,
                              .cache_misses = 13,
                              .recovering_sessions = 14,
                              .evicted_sessions = 15,
                              .memory_limit_bytes = 16,
                              .memory_charged_bytes = 17};
  const CallMetrics calls;
  const auto written = Written(status, calls);
  const std::map<std::string, double> expected = {{"info", 1},
                                                  {"sessions", 4},
                                                  {"tokens", 5},
                                                  {"pending_segments", 6},
                                                  {"threads", 7},
                                                  {"uptime_seconds", 8.5},
                                                  {"memory_bytes", 36},
                                                  {"evicted_bytes", 100},
                                                  {"damage_reports", 2},
                                                  {"disk_bytes", 9},
                                                  {"cache_bytes", 11},
                                                  {"cache_hits_total", 12},
                                                  {"cache_misses_total", 13},
                                                  {"sessions_recovering", 14},
                                                  {"sessions_evicted_total", 15},
                                                  {"memory_limit_bytes", 16},
                                                  {"memory_charged_bytes", 17}};
  for (const auto& [name, value] : expected) {
    EXPECT_EQ(Sum(written, "attic_store_" + name), value) << name;
  }
  const std::map<std::string, double> kinds = {
      {"vectors", 1}, {"tail", 2}, {"summaries", 3}, {"codes", 10}, {"graph", 20}};
  for (const auto& [kind, value] : kinds) {
    EXPECT_EQ(Sum(written, "attic_store_memory_bytes", kind), value) << kind;
  }
  EXPECT_EQ(Sum(written, "attic_store_info", "b"), 1);
}

}  // namespace
}  // namespace attic
