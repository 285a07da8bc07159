// attic-store: flags, wiring, serving until a signal.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/cluster_flags.h"
#include "server/index/segment/segment.h"
#include "server/metrics/metrics_server.h"
#include "server/metrics/store_metrics.h"
#include "server/service/listen_address.h"
#include "server/service/log.h"
#include "server/service/store_server.h"

namespace attic {
namespace {

struct Flags {
  StoreServerOptions server;
  ClusterFlags cluster;
  std::string metrics_address;
  double drain_seconds = 5;
  double sync_interval_ms = 5;
};

void AddAddressFlags(CLI::App& app, Flags& flags) {
  StoreServerOptions& server = flags.server;
  app.add_option("--listen", server.listen_address, "host:port (port 0: any free one) or unix:PATH")
      ->capture_default_str();
  app.add_flag("--allow-insecure-remote", server.allow_insecure_remote,
               "listen beyond loopback although nobody is authenticated and nothing is encrypted");
  app.add_option("--health-listen", server.health_listen_address,
                 "host:port or unix:PATH that answers health checks and nothing else, in plain "
                 "text; any address is allowed");
  app.add_option("--metrics-listen", flags.metrics_address,
                 "host:port that answers GET /metrics for Prometheus, in plain text");
}

void AddStoreFlags(CLI::App& app, Flags& flags) {
  StoreServerOptions& server = flags.server;
  Limits& limits = server.store.limits;
  IndexOptions& index = server.store.index;
  app.add_option("--threads", server.store.threads,
                 "threads that answer queries; 0: one per hardware thread")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--build-threads", server.store.build_threads,
                 "threads that build segments; 0: half the hardware threads")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--append-threads", server.append_threads,
                 "threads that take in appends and session calls")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--memory-limit", limits.memory_bytes_max,
                 "for keys, values and index, such as 64GiB; 0: three quarters of the machine's")
      ->transform(CLI::AsSizeValue(false));
  app.add_option(
      "--data-dir", server.store.disk.store.directory,
      "folder for durable sessions, and for vectors that memory has no room for; made if "
      "it does not exist; without it all sessions are in memory");
  app.add_option("--sync-interval-ms", flags.sync_interval_ms,
                 "pause between two syncs of what is appended to durable sessions")
      ->check(CLI::Range(0.0, 60'000.0))
      ->capture_default_str();
  app.add_flag(
      "--direct-io", server.store.disk.store.segment_files.direct_reads,
      "read vectors past the page cache, which would keep them a second time; not on tmpfs");
  app.add_option("--disk-read-threads", server.store.disk.store.cache.read_threads,
                 "reads of vectors under way at a time")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--sessions-max", limits.sessions_max, "sessions open at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--tenant-sessions-max", limits.tenant_sessions_max,
                 "sessions of one tenant open at once; 0: no limit of its own")
      ->capture_default_str();
  app.add_option("--tenant-memory-limit", limits.tenant_bytes_max,
                 "for one tenant's sessions, such as 8GiB; 0: no limit of its own")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--segment-tokens", index.segment_tokens, "tokens of a segment")
      ->check(CLI::Range(int64_t{256}, Segment::kTokensMax))
      ->capture_default_str();
  app.add_option("--exact-scan-tokens", index.exact_scan_tokens_max,
                 "ranges up to this long are scanned exactly")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--max-error", index.max_error,
                 "relative error of outputs aimed at where a request says nothing else")
      ->check(CLI::Range(1e-3, 1.0))
      ->capture_default_str();
  app.add_flag("--centroid-graph", index.centroid_graph,
               "build a graph over centroids, which searches for the best keys start from");
  app.add_option("--drain-seconds", flags.drain_seconds,
                 "how long calls may run on after SIGTERM or SIGINT")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
}

// The signals that end the store. Blocked in every thread, so that only sigwait sees them.
sigset_t BlockEndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Every segment on disk is an open file: as many as the machine permits.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    Log(LogLevel::kWarning, "file_limit", {{"message", "cannot be raised"}});
  }
}

// Null when no address is given.
absl::StatusOr<std::unique_ptr<MetricsServer>> StartMetrics(const Flags& flags,
                                                            StoreServer& server) {
  if (flags.metrics_address.empty()) return nullptr;
  ATTIC_ASSIGN_OR_RETURN(
      auto metrics,
      MetricsServer::Start({.listen_address = flags.metrics_address,
                            .allow_insecure_remote = flags.server.allow_insecure_remote}));
  metrics->AddSource([&server](MetricWriter& writer) { WriteStoreMetrics(server, writer); });
  return metrics;
}

void LogReady(const Flags& flags, StoreServer& server, const std::string& metrics_address) {
  const StoreStatus status = server.store().Status();
  Log(LogLevel::kInfo, "ready",
      {{"address", server.address()},
       {"boot_id", status.boot_id},
       {"version", status.version},
       {"threads", absl::StrCat(status.threads)},
       {"data_dir", flags.server.store.disk.store.directory},
       {"recovering_sessions", absl::StrCat(status.recovering_sessions)},
       {"vector_target", status.vector_target},
       {"health_address", server.health_address()},
       {"metrics_address", metrics_address}});
  if (!IsLoopbackAddress(server.address())) {
    Log(LogLevel::kWarning, "insecure_remote",
        {{"message", "anyone who reaches this address can read and change every session"}});
  }
  std::printf("attic-store ready on %s boot_id=%s\n", server.address().c_str(),
              status.boot_id.c_str());
  std::fflush(stdout);
}

int FailedToStart(const absl::Status& status) {
  Log(LogLevel::kError, "start_failed", {{"error", std::string(status.message())}});
  return EXIT_FAILURE;
}

int Serve(Flags flags) {
  const sigset_t signals = BlockEndSignals();
  CaptureLibraryLogs();
  RaiseFileLimit();
  flags.server.store.disk.sync_interval = absl::Milliseconds(flags.sync_interval_ms);
  absl::StatusOr<ClusterOptions> cluster = MakeClusterOptions(
      flags.cluster, flags.server.store.limits, flags.server.store.disk.store.directory);
  if (!cluster.ok()) return FailedToStart(cluster.status());
  flags.server.cluster = *std::move(cluster);
  auto server = StoreServer::Start(flags.server);
  if (!server.ok()) return FailedToStart(server.status());
  // Goes before the store, which it asks.
  auto metrics = StartMetrics(flags, **server);
  if (!metrics.ok()) return FailedToStart(metrics.status());
  LogReady(flags, **server, *metrics == nullptr ? "" : (*metrics)->address());

  int signal = 0;
  sigwait(&signals, &signal);
  Log(LogLevel::kInfo, "draining", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
  (*server)->Drain(absl::Now() + absl::Seconds(flags.drain_seconds));
  metrics->reset();
  server->reset();
  Log(LogLevel::kInfo, "stopped");
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  attic::Flags flags;
  CLI::App app("Keeps keys and values of long sequences and answers attention over them.",
               "attic-store");
  attic::AddAddressFlags(app, flags);
  attic::AddStoreFlags(app, flags);
  attic::AddClusterFlags(app, flags.cluster);
  CLI11_PARSE(app, argc, argv);
  return attic::Serve(flags);
}
