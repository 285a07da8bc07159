#include "server/metrics/metrics_server.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>

#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "server/service/listen_address.h"

namespace attic {
namespace {

constexpr char kThreads[] = "2";
// How long a client may take to send its request.
constexpr char kRequestTimeoutMs[] = "10000";

class Sources final : public prometheus::Collectable {
 public:
  void Add(MetricsServer::Source source) {
    MutexLock lock(mutex_);
    sources_.push_back(std::move(source));
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    MetricWriter writer;
    MutexLock lock(mutex_);
    for (const MetricsServer::Source& source : sources_) source(writer);
    return writer.Take();
  }

 private:
  mutable Mutex mutex_;
  std::vector<MetricsServer::Source> sources_ ATTIC_GUARDED_BY(mutex_);
};

// The HTTP server reads lists of ports and other forms of its own from an address.
absl::Status CheckAddress(const MetricsServerOptions& options) {
  const std::string& address = options.listen_address;
  ATTIC_RETURN_IF_ERROR(
      CheckListenAddress("metrics-listen", address, options.allow_insecure_remote));
  int port = 0;
  if (absl::StartsWith(address, "unix:") || address.find(',') != std::string::npos ||
      !absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics-listen: ", address, " is not host:port"));
  }
  return absl::OkStatus();
}

class PrometheusServer final : public MetricsServer {
 public:
  absl::Status Listen(const std::string& address) {
    const std::vector<std::string> options = {
        "listening_ports", ToNumbers(address),   "num_threads",
        kThreads,          "request_timeout_ms", kRequestTimeoutMs,
    };
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(options);
    } catch (const std::exception&) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
    }
    exposer_->RegisterCollectable(sources_);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    if (ports.empty()) return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
    address_ = WithPort(address, ports[0]);
    return absl::OkStatus();
  }

  void AddSource(Source source) override { sources_->Add(std::move(source)); }
  const std::string& address() const override { return address_; }

 private:
  // The HTTP server knows no names.
  static std::string ToNumbers(const std::string& address) {
    if (!absl::StartsWith(address, "localhost:")) return address;
    return absl::StrCat("127.0.0.1", address.substr(address.rfind(':')));
  }

  const std::shared_ptr<Sources> sources_ = std::make_shared<Sources>();
  std::string address_;
  // Last: it calls the sources.
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const MetricsServerOptions& options) {
  ATTIC_RETURN_IF_ERROR(CheckAddress(options));
  auto server = std::make_unique<PrometheusServer>();
  ATTIC_RETURN_IF_ERROR(server->Listen(options.listen_address));
  return server;
}

}  // namespace attic
