// Many threads' attend requests over one long-lived AttendStream.
#ifndef ATTIC_CLIENT_CPP_ATTEND_STREAM_H_
#define ATTIC_CLIENT_CPP_ATTEND_STREAM_H_

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "attic/v1/attention.grpc.pb.h"
#include "base/mutex.h"
#include "client/cpp/bidi_stream.h"

namespace attic {

// Thread-safe. The stream opens with the first call and again after a failure.
class AttendStream {
 public:
  AttendStream(v1::AttentionService::Stub& stub, const Limits& limits);
  // Calls in progress must have returned.
  ~AttendStream();
  AttendStream(const AttendStream&) = delete;
  AttendStream& operator=(const AttendStream&) = delete;

  // Sends the request under a request_id of its own and waits for its answer.
  //   DEADLINE_EXCEEDED at `deadline`; a later answer is dropped
  //   RESOURCE_EXHAUSTED when the request is over limits.message_bytes_max
  //   UNAVAILABLE when the stream failed; the next call opens a new one
  // Waits while limits.attend_requests_in_flight_max requests are in flight.
  absl::StatusOr<v1::AttendResponse> Call(v1::AttendRequest request, absl::Time deadline);

 private:
  using Stream = BidiStream<v1::AttendRequest, v1::AttendResponse>;

  // One caller waiting; lives on its stack, guarded by mutex_ while in pending_.
  struct Waiter {
    uint64_t generation = 0;  // of the stream that carries the request
    bool done = false;
    absl::Status status;
    v1::AttendResponse response;
    CondVar answered;
  };

  void OpenIfClosed() ATTIC_REQUIRES(mutex_);
  void OnResponse(v1::AttendResponse& response);
  void OnFinished(uint64_t generation, const absl::Status& status);

  v1::AttentionService::Stub& stub_;
  const Limits limits_;

  Mutex mutex_;
  CondVar slot_free_;
  CondVar stream_finished_;
  std::unordered_map<uint64_t, Waiter*> pending_ ATTIC_GUARDED_BY(mutex_);  // by request_id
  std::shared_ptr<Stream> stream_ ATTIC_GUARDED_BY(mutex_);                 // null when closed
  uint64_t generation_ ATTIC_GUARDED_BY(mutex_) = 0;                        // of stream_
  uint64_t next_request_id_ ATTIC_GUARDED_BY(mutex_) = 1;
  int streams_alive_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_ATTEND_STREAM_H_
