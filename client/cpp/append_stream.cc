#include "client/cpp/append_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "wire/convert.h"

namespace attic {

RemoteAppendStream::RemoteAppendStream(std::shared_ptr<v1::AttentionService::Stub> stub,
                                       const ClientOptions& options)
    : stub_(std::move(stub)), options_(options) {
  stream_ =
      Stream::Start({.on_response = [this](v1::AppendResponse& response) { OnResponse(response); },
                     .on_finished = [this](const absl::Status& status) { OnFinished(status); }},
                    [this](grpc::ClientContext* context, auto* reactor) {
                      stub_->async()->Append(context, reactor);
                    });
}

RemoteAppendStream::~RemoteAppendStream() {
  stream_->Cancel();
  MutexLock lock(mutex_);
  while (!finished_) changed_.Wait(mutex_);
}

absl::Status RemoteAppendStream::Append(const AppendBatch& batch) {
  v1::AppendRequest request = wire::ToWire(batch);
  const size_t bytes = request.ByteSizeLong();
  {
    MutexLock lock(mutex_);
    if (bytes > options_.limits.message_bytes_max && error_.ok()) {
      Fail(absl::ResourceExhaustedError(
          absl::StrCat("batch of ", bytes,
                       " bytes is over message_bytes_max = ", options_.limits.message_bytes_max)));
    }
    ATTIC_RETURN_IF_ERROR(WaitForRoom(bytes));
    unacknowledged_bytes_.push_back(bytes);
    bytes_in_flight_ += bytes;
  }
  stream_->Send(std::move(request));  // on a closed stream OnFinished reports the error
  return absl::OkStatus();
}

// A batch larger than the whole limit goes alone. The timeout runs from the latest acknowledgement:
// a store that is slow but alive is waited for.
absl::Status RemoteAppendStream::WaitForRoom(size_t bytes) {
  const size_t bytes_max = options_.limits.append_bytes_in_flight_max;
  size_t in_flight = bytes_in_flight_;
  absl::Time deadline = absl::Now() + options_.call_timeout;
  while (error_.ok() && bytes_in_flight_ > 0 && bytes_in_flight_ + bytes > bytes_max) {
    if (bytes_in_flight_ != in_flight) {
      in_flight = bytes_in_flight_;
      deadline = absl::Now() + options_.call_timeout;
    }
    if (absl::Now() >= deadline) {
      Fail(absl::DeadlineExceededError(absl::StrCat(
          "no append was acknowledged for ", absl::FormatDuration(options_.call_timeout), " with ",
          bytes_in_flight_, " bytes in flight (append_bytes_in_flight_max = ", bytes_max, ")")));
      break;
    }
    changed_.WaitFor(mutex_, WaitTime(deadline));
  }
  return error_;
}

absl::StatusOr<AppendAck> RemoteAppendStream::Flush(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (error_.ok() && !unacknowledged_bytes_.empty()) {
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(unacknowledged_bytes_.size(), " appends are not acknowledged"));
    }
    changed_.WaitFor(mutex_, WaitTime(deadline));
  }
  if (!error_.ok()) return error_;
  return last_ack_;
}

void RemoteAppendStream::OnResponse(const v1::AppendResponse& response) {
  MutexLock lock(mutex_);
  if (unacknowledged_bytes_.empty()) {
    Fail(absl::InternalError("the store acknowledged an append that was not sent"));
    return;
  }
  bytes_in_flight_ -= unacknowledged_bytes_.front();
  unacknowledged_bytes_.pop_front();
  if (const absl::Status status = wire::FromWire(response.error()); !status.ok()) {
    Fail(status);
  } else {
    last_ack_ = {.watermark = response.watermark(),
                 .durable_watermark = response.durable_watermark()};
  }
  changed_.NotifyAll();
}

void RemoteAppendStream::OnFinished(const absl::Status& status) {
  MutexLock lock(mutex_);
  Fail(status.ok() ? absl::UnavailableError("the store closed the append stream") : status);
  finished_ = true;
  changed_.NotifyAll();
}

void RemoteAppendStream::Fail(const absl::Status& status) {
  if (error_.ok()) error_ = status;
  changed_.NotifyAll();
}

}  // namespace attic
