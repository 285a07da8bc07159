// Many threads' attend requests over one long-lived AttendStream.
#ifndef ATTIC_CLIENT_CPP_ATTEND_STREAM_H_
#define ATTIC_CLIENT_CPP_ATTEND_STREAM_H_

#include <cstdint>
#include <functional>
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
  // Calls in progress must have returned; those that were started end with an error.
  ~AttendStream();
  AttendStream(const AttendStream&) = delete;
  AttendStream& operator=(const AttendStream&) = delete;

  // Sends the request under a request_id of its own and waits for its answer.
  //   DEADLINE_EXCEEDED at `deadline`; a later answer is dropped
  //   RESOURCE_EXHAUSTED when the request is over limits.message_bytes_max
  //   UNAVAILABLE when the stream failed; the next call opens a new one
  // Waits while limits.attend_requests_in_flight_max requests are in flight.
  absl::StatusOr<v1::AttendResponse> Call(v1::AttendRequest request, absl::Time deadline);

  // The same without waiting, neither for the answer nor for room: `done` takes the answer, or an
  // error as Call returns it, on any thread, perhaps before this returns. Returns the number by
  // which the call is abandoned.
  using Done = std::function<void(absl::StatusOr<v1::AttendResponse>)>;
  uint64_t Start(v1::AttendRequest request, Done done);
  // Nobody waits for the answer any more: `done` is not called, unless it is being called.
  void Abandon(uint64_t request_id);

 private:
  using Stream = BidiStream<v1::AttendRequest, v1::AttendResponse>;

  struct Pending {
    uint64_t generation = 0;  // of the stream that carries the request
    std::shared_ptr<Stream> stream;
    Done done;
  };

  // Sends the request of a call that is in pending_.
  static void Send(Stream& stream, uint64_t request_id, v1::AttendRequest request);
  uint64_t Add(Done done, std::shared_ptr<Stream>& stream) ATTIC_REQUIRES(mutex_);
  absl::Status CheckSize(const v1::AttendRequest& request) const;
  void OpenIfClosed() ATTIC_REQUIRES(mutex_);
  void OnResponse(v1::AttendResponse& response);
  void OnFinished(uint64_t generation, const absl::Status& status);

  v1::AttentionService::Stub& stub_;
  const Limits limits_;

  Mutex mutex_;
  CondVar room_;  // among the requests in flight
  CondVar stream_finished_;
  std::unordered_map<uint64_t, Pending> pending_ ATTIC_GUARDED_BY(mutex_);  // by request_id
  std::shared_ptr<Stream> stream_ ATTIC_GUARDED_BY(mutex_);                 // null when closed
  uint64_t generation_ ATTIC_GUARDED_BY(mutex_) = 0;                        // of stream_
  uint64_t next_request_id_ ATTIC_GUARDED_BY(mutex_) = 1;
  int streams_alive_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_ATTEND_STREAM_H_
