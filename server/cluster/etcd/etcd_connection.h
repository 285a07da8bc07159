// What all calls of an EtcdClient share: which endpoint is asked, its connection, and the token.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_ETCD_CONNECTION_H_
#define ATTIC_SERVER_CLUSTER_ETCD_ETCD_CONNECTION_H_

#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/cluster/etcd/etcd_channel.h"
#include "server/cluster/etcd/etcd_types.h"

namespace attic {

// Thread-safe.
class EtcdConnection {
 public:
  enum class Repeat {
    kNever,          // done twice is not as done once
    kNextEndpoints,  // after UNAVAILABLE and DEADLINE_EXCEEDED
  };
  // One attempt of a call; must keep to the deadline of the context.
  using Attempt = std::function<grpc::Status(EtcdChannel&, grpc::ClientContext&)>;

  explicit EtcdConnection(EtcdOptions options);

  // Makes the call as EtcdClient says, and until `deadline` at most.
  absl::Status Call(Repeat repeat, EtcdClock::time_point deadline, const Attempt& attempt);

  // For streams: the connected channel of the endpoint whose turn it is. Waits connect_timeout at
  // most.
  absl::StatusOr<std::shared_ptr<EtcdChannel>> Connect(EtcdClock::time_point deadline);
  // The token for calls over `channel`, asked for if there is none. Empty when the options name no
  // user or etcd does not ask for one.
  absl::StatusOr<std::string> Token(EtcdChannel& channel, EtcdClock::time_point deadline);
  // Sets what every call carries.
  static void Prepare(grpc::ClientContext& context, const std::string& token);
  // How a stream over `channel` with `token` ended: forgets what has failed.
  void Report(const std::shared_ptr<EtcdChannel>& channel, const std::string& token,
              const absl::Status& status) ATTIC_EXCLUDES(mutex_);

  const EtcdOptions& options() const { return options_; }

 private:
  absl::Status CallOn(EtcdChannel& channel, EtcdClock::time_point deadline, const Attempt& attempt);
  absl::StatusOr<std::shared_ptr<EtcdChannel>> CurrentChannel() ATTIC_EXCLUDES(mutex_);
  bool IsTokenRefused(const absl::Status& status) const;
  void ForgetChannel(const std::shared_ptr<EtcdChannel>& channel) ATTIC_EXCLUDES(mutex_);
  void ForgetToken(const std::string& token) ATTIC_EXCLUDES(mutex_);

  const EtcdOptions options_;

  Mutex mutex_;
  size_t current_ ATTIC_GUARDED_BY(mutex_) = 0;                    // index into the endpoints
  std::shared_ptr<EtcdChannel> channel_ ATTIC_GUARDED_BY(mutex_);  // of it; null: none yet
  std::string token_ ATTIC_GUARDED_BY(mutex_);
  bool token_known_ ATTIC_GUARDED_BY(mutex_) = false;  // token_ is valid, even if empty
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_ETCD_CONNECTION_H_
