// One watch, on a stream and a thread of its own.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_ETCD_WATCH_H_
#define ATTIC_SERVER_CLUSTER_ETCD_ETCD_WATCH_H_

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/cluster/etcd/etcd_connection.h"
#include "server/cluster/etcd/etcd_types.h"

namespace attic {

// See EtcdClient::Watch. One thread with a completion queue, because it has to wait for messages
// and for the time to ask for a sign of life, and must never be the thread that a channel ends on.
class EtcdWatchStream final : public EtcdWatch {
 public:
  EtcdWatchStream(std::shared_ptr<EtcdConnection> connection, std::string prefix,
                  int64_t from_revision, EtcdWatchHandler handler);
  ~EtcdWatchStream() override;

 private:
  using Stream =
      grpc::ClientAsyncReaderWriter<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>;

  void Run();
  // Why the watch has ended; never OK.
  absl::Status Serve();
  absl::Status Follow(EtcdChannel& channel);
  // OK as long as the stream goes on.
  absl::Status OnQueueEvent(void* tag, bool ok);
  absl::Status OnTimer();
  absl::Status OnResponse();
  absl::Status CheckCreated(const etcdserverpb::ResponseHeader& header) const;
  void Write(etcdserverpb::WatchRequest request);
  void Read();
  EtcdClock::time_point TimerDue() const;
  // Waits for what is in progress, then for how etcd ended the stream.
  absl::Status Finish(const EtcdChannel& channel);
  bool Stopping() const ATTIC_EXCLUDES(mutex_);

  const std::shared_ptr<EtcdConnection> connection_;
  const std::string prefix_;
  const EtcdWatchHandler handler_;

  // The thread's.
  grpc::CompletionQueue queue_;
  std::unique_ptr<Stream> stream_;
  etcdserverpb::WatchRequest request_;    // of the write in progress
  etcdserverpb::WatchResponse response_;  // of the read in progress
  int in_progress_ = 0;                   // operations whose tag will come out of queue_
  bool writing_ = false;                  // or cannot write any more
  int64_t next_revision_;                 // no later change may be older
  EtcdClock::time_point heard_at_;
  std::optional<EtcdClock::time_point> asked_at_;  // for a sign of life that has not come

  mutable Mutex mutex_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  grpc::ClientContext context_;  // cancelled by the destructor, which is thread-safe

  std::thread thread_;  // last: it uses the members above
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_ETCD_WATCH_H_
