#include "server/service/store_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "server/service/attention_service.h"
#include "server/service/executor.h"
#include "server/service/node_services.h"
#include "server/service/node_session_store.h"
#include "server/service/session_service.h"
#include "server/service/stream_registry.h"

namespace attic {
namespace {

constexpr int kKeepaliveTimeMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
// Callers may ping this often without being cut off.
constexpr int kPingIntervalMinMs = 5'000;
constexpr int kStreamsPerConnectionMax = 1024;

// What health checks ask for.
constexpr char kReadyService[] = "ready";

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
        node_(options.cluster, *store_, streams_, boot_id_, options.store.limits),
        node_store_(*store_, node_.gate()),
        session_service_(node_store_, append_executor_, streams_),
        admin_service_(node_store_, append_executor_),
        attention_service_({.store = *store_,
                            .query_executor = query_executor_,
                            .append_executor = append_executor_,
                            .streams = streams_,
                            .identity = {.boot_id = boot_id_, .gate = node_.gate()},
                            .limits = options.store.limits}) {}

  ~GrpcStoreServer() override { Drain(absl::Now()); }

  absl::Status Listen(const StoreServerOptions& options);

  const std::string& address() const override { return address_; }
  const std::string& boot_id() const override { return boot_id_; }
  SessionStore& store() override { return *store_; }
  bool ready() const override { return node_.ready(); }
  void Drain(absl::Time deadline) override;

 private:
  const std::shared_ptr<ThreadPool> query_pool_;
  const std::unique_ptr<SessionStore> store_;
  const std::string boot_id_;
  StreamRegistry streams_;
  Executor query_executor_;
  Executor append_executor_;
  NodeServices node_;
  NodeSessionStore node_store_;
  SessionServiceImpl session_service_;
  AdminServiceImpl admin_service_;
  AttentionServiceImpl attention_service_;
  std::string address_;
  Mutex drain_mutex_;
  bool drained_ ATTIC_GUARDED_BY(drain_mutex_) = false;
  // Last: it calls everything above.
  std::unique_ptr<grpc::Server> server_;
};

absl::Status GrpcStoreServer::Listen(const StoreServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen_address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&session_service_);
  builder.RegisterService(&admin_service_);
  builder.RegisterService(&attention_service_);
  node_.Register(builder);
  const int message_bytes_max = static_cast<int>(options.store.limits.message_bytes_max);
  builder.SetMaxReceiveMessageSize(message_bytes_max);
  builder.SetMaxSendMessageSize(message_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kPingIntervalMinMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  // A second store on the same port must fail, not share it.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  server_ = builder.BuildAndStart();
  const bool unix_socket = absl::StartsWith(options.listen_address, "unix:");
  if (server_ == nullptr || (port == 0 && !unix_socket)) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen_address));
  }
  address_ = options.listen_address;
  if (!unix_socket) {
    address_ = absl::StrCat(address_.substr(0, address_.rfind(':')), ":", port);
  }
  grpc::HealthCheckServiceInterface* const health = server_->GetHealthCheckService();
  health->SetServingStatus(kReadyService, node_.ready());
  return node_.Join(address_,
                    [health](bool ready) { health->SetServingStatus(kReadyService, ready); });
}

void GrpcStoreServer::Drain(absl::Time deadline) {
  MutexLock lock(drain_mutex_);
  if (drained_ || server_ == nullptr) return;
  drained_ = true;
  const absl::Time now = absl::Now();
  node_.Leave(now + std::max(deadline - now, absl::ZeroDuration()) / 2);
  server_->GetHealthCheckService()->SetServingStatus(false);
  streams_.DrainAll();
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
}

}  // namespace

bool IsLoopbackAddress(const std::string& listen_address) {
  if (absl::StartsWith(listen_address, "unix:")) return true;
  const std::string host = listen_address.substr(0, listen_address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // A name such as 127.evil.example is no address of this machine.
  return absl::StartsWith(host, "127.") &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::StatusOr<std::unique_ptr<StoreServer>> StoreServer::Start(const StoreServerOptions& options) {
  const std::string& address = options.listen_address;
  if (!absl::StartsWith(address, "unix:") && address.rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen: ", address, " is neither host:port nor unix:PATH"));
  }
  if (!options.allow_insecure_remote && !IsLoopbackAddress(address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen: ", address,
                     " is reachable from other machines, and connections are not secured; "
                     "--allow-insecure-remote permits it"));
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
