#include "server/service/health_server.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>

#include <chrono>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/service/listen_address.h"

namespace attic {
namespace {

// Server reflection is a plugin of every server in the process.
class WithoutPlugins final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->clear();
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<grpc::Server>> StartGrpcServer(grpc::ServerBuilder& builder,
                                                              const std::string& address,
                                                              std::string& bound_address) {
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  auto server = builder.BuildAndStart();
  if (server == nullptr || (port == 0 && !absl::StartsWith(address, "unix:"))) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
  }
  bound_address = WithPort(address, port);
  return server;
}

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Start(const std::string& address) {
  std::unique_ptr<HealthServer> health(new HealthServer());
  grpc::ServerBuilder builder;
  builder.SetOption(std::make_unique<WithoutPlugins>());
  builder.RegisterCallbackGenericService(&health->no_service_);
  ATTIC_ASSIGN_OR_RETURN(health->server_, StartGrpcServer(builder, address, health->address_));
  health->SetReady(false);
  return health;
}

HealthServer::~HealthServer() {
  if (server_ == nullptr) return;
  Drain();
  // Whoever watches is cut off.
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

void HealthServer::SetReady(bool ready) {
  server_->GetHealthCheckService()->SetServingStatus(kReadyService, ready);
}

void HealthServer::Drain() { server_->GetHealthCheckService()->Shutdown(); }

}  // namespace attic
