#include "server/service/store_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "server/service/attention_service.h"
#include "server/service/executor.h"
#include "server/service/health_server.h"
#include "server/service/listen_address.h"
#include "server/service/node_services.h"
#include "server/service/session_service.h"
#include "server/service/stream_registry.h"
#include "wire/channel.h"

namespace attic {
namespace {

constexpr int kKeepaliveTimeMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kStreamsPerConnectionMax = 1024;

class GrpcStoreServer : public StoreServer {
 public:
  // Requests run on the threads that share their work, so that no processor has two of them.
  GrpcStoreServer(const StoreServerOptions& options, std::shared_ptr<ThreadPool> query_pool,
                  std::unique_ptr<SessionStore> store)
      : query_pool_(std::move(query_pool)),
        store_(std::move(store)),
        boot_id_(store_->Status().boot_id),
        query_executor_(query_pool_, options.store.limits.requests_queued_max),
        append_executor_(std::make_shared<ThreadPool>(options.append_threads),
                         options.store.limits.requests_queued_max),
        node_(options.cluster, *store_, streams_, metrics_, boot_id_, options.store.limits),
        session_service_(*store_, node_.gate(), append_executor_, node_.transfer_executor(),
                         streams_, metrics_),
        admin_service_(*store_, node_.gate(), append_executor_, metrics_),
        attention_service_({.store = *store_,
                            .query_executor = query_executor_,
                            .append_executor = append_executor_,
                            .streams = streams_,
                            .metrics = metrics_,
                            .identity = {.boot_id = boot_id_, .gate = node_.gate()},
                            .limits = options.store.limits}) {}

  ~GrpcStoreServer() override { Drain(absl::Now()); }

  absl::Status Listen(const StoreServerOptions& options);

  const std::string& address() const override { return address_; }
  const std::string& boot_id() const override { return boot_id_; }
  SessionStore& store() override { return *store_; }
  const std::string& health_address() const override {
    static const std::string* const none = new std::string();
    return health_ == nullptr ? *none : health_->address();
  }
  const CallMetrics& calls() const override { return metrics_; }
  ServerActivity Activity() override;
  std::optional<NodeActivity> AsNode() override { return node_.Activity(); }
  void SetReady(bool ready) override;
  void Drain(absl::Time deadline) override;

 private:
  void EndHealth();

  const std::shared_ptr<ThreadPool> query_pool_;
  const std::unique_ptr<SessionStore> store_;
  const std::string boot_id_;
  StreamRegistry streams_;
  CallMetrics metrics_;
  Executor query_executor_;
  Executor append_executor_;
  NodeServices node_;
  SessionServiceImpl session_service_;
  AdminServiceImpl admin_service_;
  AttentionServiceImpl attention_service_;
  std::string address_;
  std::unique_ptr<HealthServer> health_;  // null: none asked for; constant after Listen
  Mutex ready_mutex_;                     // held while health checks are told, so that they agree
  bool ready_ ATTIC_GUARDED_BY(ready_mutex_) = false;
  bool ended_ ATTIC_GUARDED_BY(ready_mutex_) = false;  // nothing is ready any more
  std::atomic<bool> draining_{false};
  Mutex drain_mutex_;
  bool drained_ ATTIC_GUARDED_BY(drain_mutex_) = false;
  // Last: it calls everything above.
  std::unique_ptr<grpc::Server> server_;
};

absl::Status GrpcStoreServer::Listen(const StoreServerOptions& options) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  grpc::ServerBuilder builder;
  builder.RegisterService(&session_service_);
  builder.RegisterService(&admin_service_);
  builder.RegisterService(&attention_service_);
  node_.Register(builder);
  const int message_bytes_max = static_cast<int>(options.store.limits.message_bytes_max);
  builder.SetMaxReceiveMessageSize(message_bytes_max);
  builder.SetMaxSendMessageSize(message_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  wire::ServeChannels(builder);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  ATTIC_ASSIGN_OR_RETURN(server_, StartGrpcServer(builder, options.listen_address, address_));
  if (!options.health_listen_address.empty()) {
    ATTIC_ASSIGN_OR_RETURN(health_, HealthServer::Start(options.health_listen_address));
  }
  // A node is ready when the map says so, which node_ tells.
  SetReady(options.ready && !options.cluster.node_of_cluster());
  return node_.Join(address_, [this](bool ready) { SetReady(ready); });
}

void GrpcStoreServer::SetReady(bool ready) {
  MutexLock lock(ready_mutex_);
  if (ended_) return;
  ready_ = ready;
  server_->GetHealthCheckService()->SetServingStatus(kReadyService, ready);
  if (health_ != nullptr) health_->SetReady(ready);
}

void GrpcStoreServer::EndHealth() {
  MutexLock lock(ready_mutex_);
  ended_ = true;
  ready_ = false;
  server_->GetHealthCheckService()->Shutdown();
  if (health_ != nullptr) health_->Drain();
}

ServerActivity GrpcStoreServer::Activity() {
  bool ready = false;
  {
    MutexLock lock(ready_mutex_);
    ready = ready_;
  }
  return {.ready = ready,
          .draining = draining_,
          .streams = streams_.size(),
          .queries = query_executor_.load(),
          .appends = append_executor_.load()};
}

void GrpcStoreServer::Drain(absl::Time deadline) {
  MutexLock lock(drain_mutex_);
  if (drained_ || server_ == nullptr) return;
  drained_ = true;
  draining_ = true;
  const absl::Time now = absl::Now();
  node_.Leave(now + std::max(deadline - now, absl::ZeroDuration()) / 2);
  EndHealth();
  streams_.DrainAll();
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreServer>> StoreServer::Start(const StoreServerOptions& options) {
  ATTIC_RETURN_IF_ERROR(
      CheckListenAddress("listen", options.listen_address, options.allow_insecure_remote));
  if (!options.health_listen_address.empty()) {
    ATTIC_RETURN_IF_ERROR(CheckListenAddress("health-listen", options.health_listen_address,
                                             /*allow_remote=*/true));
  }
  SessionStoreOptions store_options = options.store;
  store_options.node_of_cluster = options.cluster.node_of_cluster();
  auto query_pool =
      std::make_shared<ThreadPool>(options.store.threads, ThreadPool::Placement::kOnePerCpu);
  ATTIC_ASSIGN_OR_RETURN(auto store, SessionStore::Open(store_options, query_pool));
  auto server = std::make_unique<GrpcStoreServer>(options, std::move(query_pool), std::move(store));
  if (const absl::Status status = server->Listen(options); !status.ok()) return status;
  return server;
}

}  // namespace attic
