#include "server/metrics/metrics_server.h"

#include <prometheus/text_serializer.h>

#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status_macros.h"
#include "server/metrics/http_server.h"
#include "server/service/listen_address.h"

namespace attic {
namespace {

class MetricsServerImpl final : public MetricsServer {
 public:
  absl::Status Listen(const std::string& address) {
    ATTIC_ASSIGN_OR_RETURN(
        http_, HttpServer::Start({.listen_address = address,
                                  .path = "/metrics",
                                  .content_type = "text/plain; version=0.0.4; charset=utf-8",
                                  .document = [this] { return Text(); }}));
    return absl::OkStatus();
  }

  void AddSource(Source source) override {
    MutexLock lock(mutex_);
    sources_.push_back(std::move(source));
  }

  const std::string& address() const override { return http_->address(); }

 private:
  std::string Text() {
    std::vector<Source> sources;
    {
      MutexLock lock(mutex_);
      sources = sources_;
    }
    MetricWriter writer;
    for (const Source& source : sources) source(writer);
    return prometheus::TextSerializer().prometheus::Serializer::Serialize(writer.Take());
  }

  Mutex mutex_;
  std::vector<Source> sources_ ATTIC_GUARDED_BY(mutex_);
  // Last: its thread uses everything above.
  std::unique_ptr<HttpServer> http_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const MetricsServerOptions& options) {
  ATTIC_RETURN_IF_ERROR(
      CheckListenAddress("metrics-listen", options.listen_address, options.allow_insecure_remote));
  auto server = std::make_unique<MetricsServerImpl>();
  ATTIC_RETURN_IF_ERROR(server->Listen(options.listen_address));
  return server;
}

}  // namespace attic
