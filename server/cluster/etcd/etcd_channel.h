// A connection to one endpoint of etcd.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_ETCD_CHANNEL_H_
#define ATTIC_SERVER_CLUSTER_ETCD_ETCD_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/cluster/etcd/etcd_types.h"

namespace attic {

using EtcdClock = std::chrono::steady_clock;

// From now on; never beyond what the clock can say.
EtcdClock::time_point EtcdDeadline(absl::Duration timeout);

// Immutable; its parts are thread-safe. Must be dropped by a thread that is not gRPC's.
struct EtcdChannel {
  // Begins to connect. FAILED_PRECONDITION when a file of the options cannot be read.
  static absl::StatusOr<std::shared_ptr<EtcdChannel>> Open(const EtcdOptions& options,
                                                           const std::string& endpoint);

  EtcdChannel(std::string endpoint_name, std::shared_ptr<grpc::Channel> grpc_channel);

  // UNAVAILABLE when the attempt to connect fails or `deadline` has come.
  absl::Status WaitForReady(EtcdClock::time_point deadline) const;

  // The status of a call to this endpoint. CANCELLED becomes UNAVAILABLE: the client looks at no
  // call that it has cancelled itself.
  absl::Status FromGrpc(const grpc::Status& status) const;

  const std::string endpoint;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<etcdserverpb::KV::Stub> kv;
  const std::unique_ptr<etcdserverpb::Lease::Stub> lease;
  const std::unique_ptr<etcdserverpb::Watch::Stub> watch;
  const std::unique_ptr<etcdserverpb::Auth::Stub> auth;
};

// By the monotonic clock: the deadline does not move when the clock of the day is set.
void SetDeadline(grpc::ClientContext& context, EtcdClock::time_point deadline);

// A file of a key, certificate or password: FAILED_PRECONDITION naming it when it cannot be read,
// is empty or over 1 MiB.
absl::StatusOr<std::string> ReadCredentialFile(const std::string& path);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_ETCD_CHANNEL_H_
