// Health checks on an address of their own, for what watches over a process and has no key to it.
#ifndef ATTIC_SERVER_SERVICE_HEALTH_SERVER_H_
#define ATTIC_SERVER_SERVICE_HEALTH_SERVER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace attic {

// What health checks call readiness for traffic. The empty name is that of the process.
inline constexpr char kReadyService[] = "ready";

// Listens on `address` with what was added to `builder`, with health checks, and without sharing
// the port with another server; sets `bound_address` to the address with the port really bound.
// UNAVAILABLE when it cannot be bound.
absl::StatusOr<std::unique_ptr<grpc::Server>> StartGrpcServer(grpc::ServerBuilder& builder,
                                                              const std::string& address,
                                                              std::string& bound_address);

// Answers grpc.health.v1 in plain text, and nothing else. Thread-safe.
class HealthServer {
 public:
  // Says SERVING of the process and NOT_SERVING of its readiness. Errors of StartGrpcServer.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(const std::string& address);
  ~HealthServer();

  const std::string& address() const { return address_; }
  void SetReady(bool ready);
  // NOT_SERVING from now on, whatever SetReady is told.
  void Drain();

 private:
  HealthServer() = default;

  // gRPC starts no server without a service; this one knows no method.
  grpc::CallbackGenericService no_service_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_HEALTH_SERVER_H_
