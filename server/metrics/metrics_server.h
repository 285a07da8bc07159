// Metrics over HTTP, for Prometheus to fetch.
#ifndef ATTIC_SERVER_METRICS_METRICS_SERVER_H_
#define ATTIC_SERVER_METRICS_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/metrics/metric_writer.h"

namespace attic {

struct MetricsServerOptions {
  std::string listen_address;  // host:port; port 0: chosen
  // Metrics tell how a store is used: beyond loopback only if this says so.
  bool allow_insecure_remote = false;
};

// Thread-safe.
class MetricsServer {
 public:
  // Writes the metrics of one part of the process. Called for each answer, by the server's thread;
  // must not block.
  using Source = std::function<void(MetricWriter& writer)>;

  // Answers GET /metrics when it returns. INVALID_ARGUMENT for an address that is not allowed,
  // UNAVAILABLE when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const MetricsServerOptions& options);
  // Waits for the source that is being called; none is called afterwards.
  virtual ~MetricsServer() = default;

  // Answers have the metrics of all sources, in the order in which they were added. What a source
  // uses outlives the server.
  virtual void AddSource(Source source) = 0;
  virtual const std::string& address() const = 0;  // with the port really bound
};

}  // namespace attic

#endif  // ATTIC_SERVER_METRICS_METRICS_SERVER_H_
