#include "client/cpp/attend_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attic {
namespace {

// A stream has no good end while requests wait, so the codes that tell nothing to a caller become
// UNAVAILABLE; a refusal (too large, not permitted, unknown method) is kept.
absl::Status StreamError(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return status;
    default:
      return absl::UnavailableError(
          absl::StrCat("the attend stream ended: ",
                       status.ok() ? "closed by the store" : std::string(status.message())));
  }
}

}  // namespace

AttendStream::AttendStream(v1::AttentionService::Stub& stub, const Limits& limits)
    : stub_(stub), limits_(limits) {}

AttendStream::~AttendStream() {
  MutexLock lock(mutex_);
  if (stream_ != nullptr) stream_->Cancel();
  while (streams_alive_ > 0) stream_finished_.Wait(mutex_);
}

void AttendStream::OpenIfClosed() {
  if (stream_ != nullptr) return;
  const uint64_t generation = ++generation_;
  ++streams_alive_;
  stream_ = Stream::Start(
      {.on_response = [this](v1::AttendResponse& r) { OnResponse(r); },
       .on_finished = [this,
                       generation](const absl::Status& status) { OnFinished(generation, status); }},
      [this](grpc::ClientContext* context, auto* reactor) {
        stub_.async()->AttendStream(context, reactor);
      });
}

absl::StatusOr<v1::AttendResponse> AttendStream::Call(v1::AttendRequest request,
                                                      absl::Time deadline) {
  if (const size_t bytes = request.ByteSizeLong(); bytes > limits_.message_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "request of ", bytes, " bytes is over message_bytes_max = ", limits_.message_bytes_max));
  }
  Waiter waiter;
  uint64_t request_id = 0;
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(mutex_);
    while (pending_.size() >= limits_.attend_requests_in_flight_max) {
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat("attend_requests_in_flight_max = ", limits_.attend_requests_in_flight_max,
                         " requests stayed in flight until the deadline"));
      }
      slot_free_.WaitFor(mutex_, WaitTime(deadline));
    }
    OpenIfClosed();
    stream = stream_;
    waiter.generation = generation_;
    request_id = next_request_id_++;
    pending_.emplace(request_id, &waiter);
  }
  request.set_request_id(request_id);
  // When the stream has just closed, OnFinished answers the waiter.
  stream->Send(std::move(request));
  {
    MutexLock lock(mutex_);
    while (!waiter.done && absl::Now() < deadline) {
      waiter.answered.WaitFor(mutex_, WaitTime(deadline));
    }
    pending_.erase(request_id);
    slot_free_.NotifyOne();
  }
  if (!waiter.done) {
    stream->Withdraw([request_id](const v1::AttendRequest& queued) {
      return queued.request_id() == request_id;
    });
    return absl::DeadlineExceededError("the store did not answer the attend request in time");
  }
  if (!waiter.status.ok()) return waiter.status;
  return std::move(waiter.response);
}

void AttendStream::OnResponse(v1::AttendResponse& response) {
  MutexLock lock(mutex_);
  const auto found = pending_.find(response.request_id());
  if (found == pending_.end() || found->second->done) return;  // its caller has given up
  Waiter& waiter = *found->second;
  waiter.response.Swap(&response);
  waiter.done = true;
  waiter.answered.NotifyOne();
}

void AttendStream::OnFinished(uint64_t generation, const absl::Status& status) {
  MutexLock lock(mutex_);
  for (auto& [request_id, waiter] : pending_) {
    if (waiter->generation != generation || waiter->done) continue;
    waiter->status = StreamError(status);
    waiter->done = true;
    waiter->answered.NotifyOne();
  }
  if (generation == generation_) stream_ = nullptr;
  --streams_alive_;
  stream_finished_.NotifyAll();
}

}  // namespace attic
