#include "server/cluster/etcd/etcd_watch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/cluster/etcd/etcd_messages.h"

namespace attic {
namespace {

// Tags of the operations of a stream; there is at most one of each in progress.
char start_tag, read_tag, write_tag, finish_tag;

EtcdClock::duration ToClock(absl::Duration duration) {
  return std::chrono::duration_cast<EtcdClock::duration>(absl::ToChronoNanoseconds(duration));
}

gpr_timespec WaitUntil(EtcdClock::time_point due) {
  const auto left =
      std::max(EtcdClock::duration::zero(), EtcdClock::duration(due - EtcdClock::now()));
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(std::chrono::nanoseconds(left).count(), GPR_TIMESPAN));
}

// A refusal to watch comes in words alone, with no code.
absl::Status CancelStatus(const etcdserverpb::WatchResponse& response) {
  const std::string message = absl::StrCat("etcd ended the watch: ", response.cancel_reason());
  if (response.compact_revision() != 0) {
    return absl::OutOfRangeError(
        absl::StrCat(message, "; history begins at revision ", response.compact_revision()));
  }
  if (absl::StrContains(message, "invalid auth token")) return absl::UnauthenticatedError(message);
  if (absl::StrContains(message, "permission denied")) return absl::PermissionDeniedError(message);
  return absl::UnavailableError(message);
}

}  // namespace

EtcdWatchStream::EtcdWatchStream(std::shared_ptr<EtcdConnection> connection, std::string prefix,
                                 int64_t from_revision, EtcdWatchHandler handler)
    : connection_(std::move(connection)),
      prefix_(std::move(prefix)),
      handler_(std::move(handler)),
      next_revision_(from_revision),
      thread_([this] { Run(); }) {}

EtcdWatchStream::~EtcdWatchStream() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  context_.TryCancel();
  thread_.join();
}

void EtcdWatchStream::Run() {
  const absl::Status status = Serve();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
  if (!Stopping()) handler_.on_end(status);
}

absl::Status EtcdWatchStream::Serve() {
  const EtcdClock::time_point deadline =
      EtcdDeadline(connection_->options().connect_timeout + connection_->options().call_timeout);
  ATTIC_ASSIGN_OR_RETURN(const std::shared_ptr<EtcdChannel> channel,
                         connection_->Connect(deadline));
  absl::StatusOr<std::string> token = connection_->Token(*channel, deadline);
  if (!token.ok()) {
    connection_->Report(channel, "", token.status());
    return token.status();
  }
  EtcdConnection::Prepare(context_, *token);
  const absl::Status status = Follow(*channel);
  if (!Stopping()) connection_->Report(channel, *token, status);
  return status;
}

absl::Status EtcdWatchStream::Follow(EtcdChannel& channel) {
  stream_ = channel.watch->PrepareAsyncWatch(&context_, &queue_);
  stream_->StartCall(&start_tag);
  ++in_progress_;
  heard_at_ = EtcdClock::now();
  asked_at_ = heard_at_;
  absl::Status status;
  while (status.ok()) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_.AsyncNext(&tag, &ok, WaitUntil(TimerDue()));
    status = next == grpc::CompletionQueue::GOT_EVENT ? OnQueueEvent(tag, ok) : OnTimer();
  }
  // CANCELLED is this loop's word for a stream that ended by itself, for a reason known only now.
  if (!absl::IsCancelled(status)) context_.TryCancel();
  const absl::Status finished = Finish(channel);
  stream_ = nullptr;
  return absl::IsCancelled(status) ? finished : status;
}

absl::Status EtcdWatchStream::OnQueueEvent(void* tag, bool ok) {
  --in_progress_;
  if (tag == &write_tag) {
    // After a write that failed there is no other, but what etcd said last can still be read.
    writing_ = !ok;
    return absl::OkStatus();
  }
  if (!ok) return absl::CancelledError();
  if (tag == &read_tag) {
    ATTIC_RETURN_IF_ERROR(OnResponse());
    Read();
  } else if (tag == &start_tag) {
    etcdserverpb::WatchRequest request;
    etcdserverpb::WatchCreateRequest& create = *request.mutable_create_request();
    create.set_key(prefix_);
    create.set_range_end(EtcdPrefixEnd(prefix_));
    create.set_start_revision(next_revision_);
    create.set_fragment(true);
    Write(std::move(request));
    Read();
  }
  return absl::OkStatus();
}

EtcdClock::time_point EtcdWatchStream::TimerDue() const {
  const EtcdClock::duration timeout = ToClock(connection_->options().call_timeout);
  return asked_at_.has_value() ? *asked_at_ + timeout : heard_at_ + timeout / 2;
}

absl::Status EtcdWatchStream::OnTimer() {
  if (EtcdClock::now() < TimerDue()) return absl::OkStatus();
  if (asked_at_.has_value()) {
    return absl::DeadlineExceededError("etcd gave the watch no sign of life in time");
  }
  asked_at_ = EtcdClock::now();
  etcdserverpb::WatchRequest request;
  request.mutable_progress_request();
  // A request that could not be written in all this time is asked about, too.
  if (!writing_) Write(std::move(request));
  return absl::OkStatus();
}

absl::Status EtcdWatchStream::OnResponse() {
  asked_at_ = std::nullopt;
  if (response_.canceled()) return CancelStatus(response_);
  if (response_.created()) ATTIC_RETURN_IF_ERROR(CheckCreated(response_.header()));
  if (response_.events_size() > 0) {
    std::vector<EtcdEvent> events;
    events.reserve(response_.events_size());
    for (mvccpb::Event& wire : *response_.mutable_events()) {
      ATTIC_ASSIGN_OR_RETURN(EtcdEvent event, FromWire(prefix_, next_revision_, wire));
      next_revision_ = event.entry.mod_revision;
      events.push_back(std::move(event));
    }
    if (!Stopping()) handler_.on_events(events);
  }
  heard_at_ = EtcdClock::now();  // after the handler, whose time is not etcd's
  return absl::OkStatus();
}

// etcd waits in silence for revisions to come. After it lost its data they would be other changes
// than those the owner has missed.
absl::Status EtcdWatchStream::CheckCreated(const etcdserverpb::ResponseHeader& header) const {
  ATTIC_ASSIGN_OR_RETURN(const int64_t revision, RevisionOf(header));
  if (next_revision_ <= revision + 1) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("etcd is at revision ", revision,
                                            ", the watch was to begin at ", next_revision_));
}

void EtcdWatchStream::Write(etcdserverpb::WatchRequest request) {
  request_ = std::move(request);
  writing_ = true;
  ++in_progress_;
  stream_->Write(request_, &write_tag);
}

void EtcdWatchStream::Read() {
  ++in_progress_;
  stream_->Read(&response_, &read_tag);
}

absl::Status EtcdWatchStream::Finish(const EtcdChannel& channel) {
  void* tag = nullptr;
  bool ok = false;
  while (in_progress_ > 0 && queue_.Next(&tag, &ok)) --in_progress_;
  grpc::Status status;
  stream_->Finish(&status, &finish_tag);
  queue_.Next(&tag, &ok);
  if (status.ok()) return absl::UnavailableError("etcd ended the watch");
  return channel.FromGrpc(status);
}

bool EtcdWatchStream::Stopping() const {
  MutexLock lock(mutex_);
  return stopping_;
}

}  // namespace attic
