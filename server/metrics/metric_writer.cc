#include "server/metrics/metric_writer.h"

#include <prometheus/metric_family.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "base/check.h"

namespace attic {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

MetricWriter::MetricWriter() = default;
MetricWriter::~MetricWriter() = default;

void MetricWriter::Gauge(const std::string& name, const std::string& help, double value,
                         const Labels& labels) {
  Add(name, help, MetricType::Gauge, labels).gauge.value = value;
}

void MetricWriter::Counter(const std::string& name, const std::string& help, double value,
                           const Labels& labels) {
  ATTIC_CHECK(absl::EndsWith(name, "_total"));
  Add(name, help, MetricType::Counter, labels).counter.value = value;
}

void MetricWriter::Histogram(const std::string& name, const std::string& help,
                             const HistogramCounts& counts, const Labels& labels) {
  ATTIC_CHECK(counts.counts.size() == counts.upper_bounds.size() + 1);
  ClientMetric::Histogram& histogram = Add(name, help, MetricType::Histogram, labels).histogram;
  uint64_t count = 0;
  for (size_t i = 0; i < counts.upper_bounds.size(); ++i) {
    count += counts.counts[i];
    histogram.bucket.push_back({.cumulative_count = count, .upper_bound = counts.upper_bounds[i]});
  }
  histogram.sample_count = count + counts.counts.back();
  histogram.sample_sum = counts.sum;
}

std::vector<MetricFamily> MetricWriter::Take() { return std::exchange(families_, {}); }

ClientMetric& MetricWriter::Add(const std::string& name, const std::string& help, MetricType type,
                                const Labels& labels) {
  auto family = std::find_if(families_.begin(), families_.end(),
                             [&](const MetricFamily& f) { return f.name == name; });
  if (family == families_.end()) {
    families_.push_back({.name = name, .help = help, .type = type, .metric = {}});
    family = families_.end() - 1;
  }
  ATTIC_CHECK(family->type == type);
  ClientMetric& metric = family->metric.emplace_back();
  for (const auto& [label, value] : labels) metric.label.push_back({label, value});
  return metric;
}

}  // namespace attic
