// A bidirectional stream on which every request gets one response.
#ifndef ATTIC_SERVER_SERVICE_REQUEST_STREAM_H_
#define ATTIC_SERVER_SERVICE_REQUEST_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "server/service/stream_registry.h"

namespace attic {

// Reads requests while fewer than in_flight_max are unanswered (the caller is slowed down by
// gRPC's flow control), hands them to Handle, and writes the responses in the order of Respond.
//
// Lifetime: deletes itself when gRPC is done with it, which is not before the call was finished;
// and the call is finished only when every request was answered. So a handler may use the stream
// until it has called Respond, also after the caller is gone.
template <typename Request, typename Response>
class RequestStream : public grpc::ServerBidiReactor<Request, Response>, public DrainableStream {
 public:
  struct Exchange {
    Request request;
    Response response;
  };
  using ExchangePtr = std::shared_ptr<Exchange>;

  RequestStream(size_t in_flight_max, StreamRegistry& registry)
      : in_flight_max_(in_flight_max), registry_(registry) {}

  // To be called once, after construction.
  void Start() {
    registry_.Add(this);
    Advance();
  }

  void Drain() override {
    {
      MutexLock lock(mutex_);
      draining_ = true;
    }
    Advance();
  }

  void OnReadDone(bool ok) override {
    ExchangePtr exchange;
    {
      MutexLock lock(mutex_);
      reading_ = false;
      if (!ok) reads_done_ = true;
      if (ok && !finished_) {
        ++in_flight_;
        exchange = std::move(incoming_);
      }
    }
    if (exchange != nullptr) Handle(std::move(exchange));
    Advance();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      writing_ = false;
      outgoing_.reset();
      --in_flight_;
      if (!ok) cancelled_ = true;
    }
    Advance();
  }

  void OnCancel() override {
    {
      MutexLock lock(mutex_);
      cancelled_ = true;
    }
    Advance();
  }

  void OnDone() override {
    registry_.Remove(this);
    delete this;
  }

 protected:
  // Answers the exchange's request, now or later, on any thread, by one call of Respond. Called on
  // a thread of gRPC: must not compute or wait.
  virtual void Handle(ExchangePtr exchange) = 0;

  // Sends the exchange's response. The stream may be gone when this returns.
  void Respond(ExchangePtr exchange) {
    {
      MutexLock lock(mutex_);
      waiting_.push_back(std::move(exchange));
      ++issuing_;
    }
    Advance(/*issuing=*/true);
  }

  // The caller is gone: an answer would be dropped.
  bool cancelled() {
    MutexLock lock(mutex_);
    return cancelled_;
  }

 private:
  // Starts whatever can be started. gRPC is called without the lock; issuing_ keeps another thread
  // from finishing the call, and so from deleting the stream, in between. `issuing`: the caller has
  // counted itself already.
  void Advance(bool issuing = false) {
    for (;;) {
      bool read = false;
      bool write = false;
      grpc::Status status;
      {
        MutexLock lock(mutex_);
        if (issuing) --issuing_;
        write = PrepareWrite();
        read = PrepareRead();
        if (!read && !write) {
          if (!PrepareFinish()) return;
          if (draining_ && !reads_done_) {
            status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "the store is draining");
          }
        } else {
          ++issuing_;
        }
      }
      if (!read && !write) {
        this->Finish(std::move(status));
        return;
      }
      if (write) this->StartWrite(&outgoing_->response);
      if (read) this->StartRead(&incoming_->request);
      issuing = true;
    }
  }

  bool PrepareWrite() ATTIC_REQUIRES(mutex_) {
    if (cancelled_) {
      in_flight_ -= waiting_.size();
      waiting_.clear();
    }
    if (writing_ || waiting_.empty()) return false;
    outgoing_ = std::move(waiting_.front());
    waiting_.pop_front();
    return writing_ = true;
  }

  bool PrepareRead() ATTIC_REQUIRES(mutex_) {
    if (reading_ || reads_done_ || cancelled_ || draining_) return false;
    if (in_flight_ >= in_flight_max_) return false;
    incoming_ = std::make_shared<Exchange>();
    return reading_ = true;
  }

  bool PrepareFinish() ATTIC_REQUIRES(mutex_) {
    const bool ending = reads_done_ || cancelled_ || draining_;
    if (!ending || finished_ || writing_ || in_flight_ > 0 || issuing_ > 0) return false;
    return finished_ = true;
  }

  const size_t in_flight_max_;
  StreamRegistry& registry_;

  Mutex mutex_;
  bool reading_ ATTIC_GUARDED_BY(mutex_) = false;
  bool writing_ ATTIC_GUARDED_BY(mutex_) = false;
  bool reads_done_ ATTIC_GUARDED_BY(mutex_) = false;
  bool cancelled_ ATTIC_GUARDED_BY(mutex_) = false;
  bool draining_ ATTIC_GUARDED_BY(mutex_) = false;
  bool finished_ ATTIC_GUARDED_BY(mutex_) = false;
  size_t in_flight_ ATTIC_GUARDED_BY(mutex_) = 0;             // read and not yet written
  size_t issuing_ ATTIC_GUARDED_BY(mutex_) = 0;               // threads between the lock and gRPC
  std::deque<ExchangePtr> waiting_ ATTIC_GUARDED_BY(mutex_);  // to be written
  // Owned by gRPC while reading_ or writing_.
  ExchangePtr incoming_;
  ExchangePtr outgoing_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_REQUEST_STREAM_H_
