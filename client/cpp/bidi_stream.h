// One bidirectional gRPC stream on the callback interface, which costs one thread hop a round trip
// and, unlike the blocking interface, never blocks a writer beyond its deadline.
#ifndef ATTIC_CLIENT_CPP_BIDI_STREAM_H_
#define ATTIC_CLIENT_CPP_BIDI_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"

namespace attic {

// Thread-safe. Both handlers run on gRPC's threads, one at a time and without locks held;
// on_response may move from its argument. on_finished is called exactly once, last: whoever the
// handlers refer to, and the stub, must live until then. The stream keeps itself alive until then.
template <typename Request, typename Response>
class BidiStream final : public grpc::ClientBidiReactor<Request, Response> {
 public:
  struct Handlers {
    std::function<void(Response&)> on_response;
    std::function<void(const absl::Status&)> on_finished;
  };

  // open(context, reactor) is the stub's method, for example stub->async()->AttendStream.
  template <typename Open>
  static std::shared_ptr<BidiStream> Start(Handlers handlers, Open open) {
    std::shared_ptr<BidiStream> stream(new BidiStream(std::move(handlers)));
    stream->self_ = stream;
    stream->Open(open);
    stream->AddHold();  // writes may start at any time until Close
    stream->StartRead(&stream->response_);
    stream->StartCall();
    return stream;
  }

  // Queues a request; false when the stream is closed.
  bool Send(Request request) ATTIC_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (closed_) return false;
      if (writing_) {
        queue_.push_back(std::move(request));
        return true;
      }
      writing_ = true;
      request_ = std::move(request);
      this->AddHold();  // so that the write can start after the lock is released
    }
    this->StartWrite(&request_);
    this->RemoveHold();
    return true;
  }

  // Forgets the queued requests, not yet given to the network, for which matches(request).
  template <typename Matches>
  void Withdraw(Matches matches) ATTIC_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    std::erase_if(queue_, matches);
  }

  // Ends the stream; on_finished follows soon.
  void Cancel() ATTIC_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  explicit BidiStream(Handlers handlers) : handlers_(std::move(handlers)) {}

  template <typename OpenStub>
  void Open(OpenStub open) ATTIC_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    open(context_.get(), this);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Close();
    handlers_.on_response(response_);
    this->StartRead(&response_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Close();
    {
      MutexLock lock(mutex_);
      if (queue_.empty() || closed_) {
        writing_ = false;
        return;
      }
      request_ = std::move(queue_.front());
      queue_.pop_front();
    }
    this->StartWrite(&request_);
  }

  void OnDone(const grpc::Status& status) override {
    Close();
    {
      // The context shares the channel, whose destruction joins gRPC's threads: were it to go last,
      // it would end on one of them. After on_finished the owner may drop the channel.
      MutexLock lock(mutex_);
      context_ = nullptr;
    }
    const std::shared_ptr<BidiStream> self = std::move(self_);
    handlers_.on_finished(wire::FromGrpc(status));
  }

  void Close() ATTIC_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (closed_) return;
      closed_ = true;
      queue_.clear();
    }
    this->RemoveHold();
  }

  const Handlers handlers_;
  std::shared_ptr<BidiStream> self_;
  Response response_;  // of the read in progress
  Request request_;    // of the write in progress; written to only by whoever set writing_

  Mutex mutex_;
  // Null once the stream has finished.
  std::unique_ptr<grpc::ClientContext> context_ ATTIC_GUARDED_BY(mutex_) =
      std::make_unique<grpc::ClientContext>();
  std::deque<Request> queue_ ATTIC_GUARDED_BY(mutex_);
  bool writing_ ATTIC_GUARDED_BY(mutex_) = false;
  bool closed_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_BIDI_STREAM_H_
