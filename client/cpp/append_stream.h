// Appends over one gRPC stream, pipelined.
#ifndef ATTIC_CLIENT_CPP_APPEND_STREAM_H_
#define ATTIC_CLIENT_CPP_APPEND_STREAM_H_

#include <cstddef>
#include <deque>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attic/v1/attention.grpc.pb.h"
#include "base/mutex.h"
#include "client/cpp/bidi_stream.h"
#include "client/cpp/client.h"

namespace attic {

// See AppendStream. Keeps `stub` alive.
class RemoteAppendStream final : public AppendStream {
 public:
  RemoteAppendStream(std::shared_ptr<v1::AttentionService::Stub> stub,
                     const ClientOptions& options);
  ~RemoteAppendStream() override;

  absl::Status Append(const AppendBatch& batch) override;
  absl::StatusOr<AppendAck> Flush(absl::Time deadline) override;

 private:
  using Stream = BidiStream<v1::AppendRequest, v1::AppendResponse>;

  absl::Status WaitForRoom(size_t bytes) ATTIC_REQUIRES(mutex_);
  void OnResponse(const v1::AppendResponse& response);
  void OnFinished(const absl::Status& status);
  void Fail(const absl::Status& status) ATTIC_REQUIRES(mutex_);

  const std::shared_ptr<v1::AttentionService::Stub> stub_;
  const ClientOptions options_;
  std::shared_ptr<Stream> stream_;

  Mutex mutex_;
  CondVar changed_;
  absl::Status error_ ATTIC_GUARDED_BY(mutex_);  // the first
  std::deque<size_t> unacknowledged_bytes_ ATTIC_GUARDED_BY(mutex_);
  size_t bytes_in_flight_ ATTIC_GUARDED_BY(mutex_) = 0;
  AppendAck last_ack_ ATTIC_GUARDED_BY(mutex_);
  bool finished_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_APPEND_STREAM_H_
