#include "client/cpp/attend_stream.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

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

absl::Status AttendStream::CheckSize(const v1::AttendRequest& request) const {
  const size_t bytes = request.ByteSizeLong();
  if (bytes <= limits_.message_bytes_max) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "request of ", bytes, " bytes is over message_bytes_max = ", limits_.message_bytes_max));
}

uint64_t AttendStream::Add(Done done, std::shared_ptr<Stream>& stream) {
  OpenIfClosed();
  stream = stream_;
  const uint64_t request_id = next_request_id_++;
  pending_.emplace(request_id,
                   Pending{.generation = generation_, .stream = stream_, .done = std::move(done)});
  return request_id;
}

void AttendStream::Send(Stream& stream, uint64_t request_id, v1::AttendRequest request) {
  request.set_request_id(request_id);
  // When the stream has just closed, OnFinished answers the call.
  stream.Send(std::move(request));
}

uint64_t AttendStream::Start(v1::AttendRequest request, Done done) {
  if (const absl::Status fits = CheckSize(request); !fits.ok()) {
    done(fits);
    return 0;
  }
  std::shared_ptr<Stream> stream;
  uint64_t request_id = 0;
  {
    MutexLock lock(mutex_);
    request_id = Add(std::move(done), stream);
  }
  Send(*stream, request_id, std::move(request));
  return request_id;
}

void AttendStream::Abandon(uint64_t request_id) {
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(mutex_);
    const auto found = pending_.find(request_id);
    if (found == pending_.end()) return;
    stream = found->second.stream;
    pending_.erase(found);
    room_.NotifyOne();
  }
  stream->Withdraw(
      [request_id](const v1::AttendRequest& queued) { return queued.request_id() == request_id; });
}

absl::StatusOr<v1::AttendResponse> AttendStream::Call(v1::AttendRequest request,
                                                      absl::Time deadline) {
  ATTIC_RETURN_IF_ERROR(CheckSize(request));
  // Shared with the callback, which may be running when this gives up.
  struct Answer {
    Mutex mutex;
    CondVar came;
    std::optional<absl::StatusOr<v1::AttendResponse>> result ATTIC_GUARDED_BY(mutex);
  };
  const auto answer = std::make_shared<Answer>();
  const auto done = [answer](absl::StatusOr<v1::AttendResponse> result) {
    MutexLock lock(answer->mutex);
    answer->result = std::move(result);
    answer->came.NotifyOne();
  };
  std::shared_ptr<Stream> stream;
  uint64_t request_id = 0;
  {
    MutexLock lock(mutex_);
    while (pending_.size() >= limits_.attend_requests_in_flight_max) {
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat("attend_requests_in_flight_max = ", limits_.attend_requests_in_flight_max,
                         " requests stayed in flight until the deadline"));
      }
      room_.WaitFor(mutex_, WaitTime(deadline));
    }
    request_id = Add(done, stream);
  }
  Send(*stream, request_id, std::move(request));
  {
    MutexLock lock(answer->mutex);
    while (!answer->result.has_value() && absl::Now() < deadline) {
      answer->came.WaitFor(answer->mutex, WaitTime(deadline));
    }
    if (answer->result.has_value()) return *std::move(answer->result);
  }
  Abandon(request_id);
  return absl::DeadlineExceededError("the store did not answer the attend request in time");
}

void AttendStream::OnResponse(v1::AttendResponse& response) {
  Done done;
  {
    MutexLock lock(mutex_);
    const auto found = pending_.find(response.request_id());
    if (found == pending_.end()) return;  // its caller has given up
    done = std::move(found->second.done);
    pending_.erase(found);
    room_.NotifyOne();
  }
  v1::AttendResponse taken;
  taken.Swap(&response);
  done(std::move(taken));
}

void AttendStream::OnFinished(uint64_t generation, const absl::Status& status) {
  std::vector<Done> ended;
  {
    MutexLock lock(mutex_);
    for (auto pending = pending_.begin(); pending != pending_.end();) {
      const auto next = std::next(pending);
      if (pending->second.generation == generation) {
        ended.push_back(std::move(pending->second.done));
        pending_.erase(pending);
      }
      pending = next;
    }
    if (generation == generation_) stream_ = nullptr;
    room_.NotifyAll();
  }
  for (const Done& done : ended) done(StreamError(status));
  MutexLock lock(mutex_);
  --streams_alive_;
  stream_finished_.NotifyAll();
}

}  // namespace attic
