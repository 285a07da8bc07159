// A stream of messages to a caller, made one at a time as the caller takes them.
#ifndef ATTIC_SERVER_SERVICE_PULLED_STREAM_H_
#define ATTIC_SERVER_SERVICE_PULLED_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"
#include "server/service/stream_registry.h"
#include "server/service/unary_call.h"

namespace attic {

// Steps of one call, one after the other: each runs on the executor, and what it starts of gRPC
// leads to the next. Finish is called once, by the last step. That the caller is gone is found out
// by gRPC's failing. Ends `timer`, which counts the whole stream. Deletes itself when gRPC is done
// with it.
template <typename Response>
class PulledStream final : public grpc::ServerWriteReactor<Response>, public DrainableStream {
 public:
  // Fills the response, which is empty; false when there is nothing more to send.
  using NextFunction = std::function<absl::StatusOr<bool>(Response& response)>;

  PulledStream(grpc::CallbackServerContext* context, Executor& executor, StreamRegistry& streams,
               const CallTimer& timer, NextFunction next)
      : context_(context),
        executor_(executor),
        streams_(streams),
        timer_(timer),
        next_(std::move(next)) {}

  // To be called once, after construction.
  void Start() {
    streams_.Add(this);
    Schedule();
  }

  void Drain() override { draining_ = true; }
  void OnWriteDone(bool ok) override {
    if (ok) {
      Schedule();
    } else {
      End(absl::CancelledError("the caller left"));
    }
  }
  void OnDone() override {
    streams_.Remove(this);
    delete this;
  }

 private:
  void Schedule() {
    const absl::Status queued = executor_.Schedule([this] { Step(); });
    if (!queued.ok()) End(queued);
  }

  void Step() {
    response_.Clear();
    const absl::StatusOr<bool> more = Next();
    if (more.ok() && *more) {
      this->StartWrite(&response_);
    } else {
      End(more.status());
    }
  }

  absl::StatusOr<bool> Next() {
    if (draining_) return absl::UnavailableError("the store is shutting down");
    if (context_->IsCancelled()) return absl::CancelledError("the caller left");
    return next_(response_);
  }

  // What `next` holds is let go here: OnDone may come late.
  void End(const absl::Status& status) {
    next_ = nullptr;
    timer_.End(status.code());
    this->Finish(ToGrpcStatus(status));
  }

  grpc::CallbackServerContext* const context_;
  Executor& executor_;
  StreamRegistry& streams_;
  const CallTimer timer_;
  std::atomic<bool> draining_{false};
  // Of the step that runs.
  NextFunction next_;
  Response response_;
};

// Serves a call by it.
template <typename Response>
grpc::ServerWriteReactor<Response>* ServePulled(
    grpc::CallbackServerContext* context, Executor& executor, StreamRegistry& streams,
    const CallTimer& timer, typename PulledStream<Response>::NextFunction next) {
  auto* stream = new PulledStream<Response>(context, executor, streams, timer, std::move(next));
  stream->Start();
  return stream;
}

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_PULLED_STREAM_H_
