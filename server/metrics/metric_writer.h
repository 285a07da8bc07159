// Collects metrics for one answer to Prometheus.
#ifndef ATTIC_SERVER_METRICS_METRIC_WRITER_H_
#define ATTIC_SERVER_METRICS_METRIC_WRITER_H_

#include <string>
#include <utility>
#include <vector>

#include "server/service/histogram.h"

namespace prometheus {
struct ClientMetric;
struct MetricFamily;
enum class MetricType;
}  // namespace prometheus

namespace attic {

// Every call adds one series: a name, labels and what is measured. Series of one name have one type
// and help text, and differ in their labels. server/metrics/METRICS.md lists all names. Not
// thread-safe.
class MetricWriter {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  MetricWriter();
  ~MetricWriter();
  MetricWriter(const MetricWriter&) = delete;
  MetricWriter& operator=(const MetricWriter&) = delete;

  // What goes up and down.
  void Gauge(const std::string& name, const std::string& help, double value,
             const Labels& labels = {});
  // What only goes up, from 0 at the start of the process. The name ends in _total.
  void Counter(const std::string& name, const std::string& help, double value,
               const Labels& labels = {});
  void Histogram(const std::string& name, const std::string& help, const HistogramCounts& counts,
                 const Labels& labels = {});

  // All that was added; nothing is left.
  std::vector<prometheus::MetricFamily> Take();

 private:
  prometheus::ClientMetric& Add(const std::string& name, const std::string& help,
                                prometheus::MetricType type, const Labels& labels);

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_METRICS_METRIC_WRITER_H_
