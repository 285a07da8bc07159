#include "server/service/attention_service.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "server/service/request_stream.h"
#include "server/service/unary_call.h"
#include "wire/convert.h"

namespace attic {
namespace {

// How soon an append that waits for the builder is tried again.
constexpr std::chrono::milliseconds kAppendRetry(5);
// And how long before it is refused.
constexpr absl::Duration kAppendWaitMax = absl::Minutes(1);

class AppendStream final : public RequestStream<v1::AppendRequest, v1::AppendResponse> {
 public:
  explicit AppendStream(const AttentionContext& context)
      : RequestStream(/*in_flight_max=*/1, context.streams), context_(context) {}

 private:
  void Handle(ExchangePtr exchange) override {
    give_up_ = absl::Now() + kAppendWaitMax;
    timer_.emplace(context_.metrics, Method::kAppend);
    Queue(exchange);
  }

  void Queue(const ExchangePtr& exchange) {
    const absl::Status queued =
        context_.append_executor.Schedule([this, exchange] { Work(exchange); });
    if (!queued.ok()) Answer(exchange, queued);
  }

  void Work(const ExchangePtr& exchange) {
    const absl::Status status =
        AnswerAppend(context_.store, context_.identity, context_.metrics, exchange->request,
                     absl::InfinitePast(), exchange->response);
    // Waiting for the builder in here would keep a thread from other sessions' appends.
    if (absl::IsDeadlineExceeded(status) && absl::Now() < give_up_ && !cancelled()) {
      // Held here too: the stream may be gone before Set returns.
      const auto alarm = std::make_shared<grpc::Alarm>();
      retry_ = alarm;
      alarm->Set(std::chrono::system_clock::now() + kAppendRetry,
                 [this, exchange](bool) { Queue(exchange); });
      return;
    }
    Answer(exchange, status);
  }

  void Answer(const ExchangePtr& exchange, const absl::Status& status) {
    exchange->response.set_session_id(exchange->request.session_id());
    exchange->response.set_layer(exchange->request.layer());
    if (!status.ok()) *exchange->response.mutable_error() = wire::ToWire(status);
    timer_->End(status.code());
    Respond(exchange);
  }

  const AttentionContext& context_;
  // Of the one request in flight.
  absl::Time give_up_;
  std::optional<CallTimer> timer_;
  std::shared_ptr<grpc::Alarm> retry_;
};

class AttendStreamReactor final : public RequestStream<v1::AttendRequest, v1::AttendResponse> {
 public:
  explicit AttendStreamReactor(const AttentionContext& context)
      : RequestStream(context.limits.attend_requests_in_flight_max, context.streams),
        context_(context) {}

 private:
  void Handle(ExchangePtr exchange) override {
    const CallTimer timer(context_.metrics, Method::kAttendStream);
    const absl::Time arrival = absl::Now();
    const absl::Status queued = context_.query_executor.Schedule([this, exchange, timer, arrival] {
      Answer(exchange, timer,
             cancelled() ? absl::CancelledError("the caller left") : Work(exchange, arrival));
    });
    if (queued.ok()) return;
    exchange->response.set_request_id(exchange->request.request_id());
    Answer(exchange, timer, queued);
  }

  absl::Status Work(const ExchangePtr& exchange, absl::Time arrival) {
    return AnswerAttend(context_.store, context_.identity, context_.metrics, exchange->request,
                        arrival, absl::InfiniteFuture(), exchange->response);
  }

  void Answer(const ExchangePtr& exchange, const CallTimer& timer, const absl::Status& status) {
    if (!status.ok()) *exchange->response.mutable_error() = wire::ToWire(status);
    timer.End(status.code());
    Respond(exchange);
  }

  const AttentionContext& context_;
};

}  // namespace

grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* AttentionServiceImpl::Append(
    grpc::CallbackServerContext*) {
  auto* stream = new AppendStream(context_);
  stream->Start();
  return stream;
}

grpc::ServerBidiReactor<v1::AttendRequest, v1::AttendResponse>* AttentionServiceImpl::AttendStream(
    grpc::CallbackServerContext*) {
  auto* stream = new AttendStreamReactor(context_);
  stream->Start();
  return stream;
}

grpc::ServerUnaryReactor* AttentionServiceImpl::Attend(grpc::CallbackServerContext* context,
                                                       const v1::AttendRequest* request,
                                                       v1::AttendResponse* response) {
  const absl::Time arrival = absl::Now();
  return ServeUnary(context, context_.query_executor, {context_.metrics, Method::kAttend},
                    [this, request, response, arrival](absl::Time deadline) {
                      return AnswerAttend(context_.store, context_.identity, context_.metrics,
                                          *request, arrival, deadline, *response);
                    });
}

grpc::ServerUnaryReactor* AttentionServiceImpl::Search(grpc::CallbackServerContext* context,
                                                       const v1::SearchRequest* request,
                                                       v1::SearchResponse* response) {
  return ServeUnary(context, context_.query_executor, {context_.metrics, Method::kSearch},
                    [this, request, response](absl::Time deadline) {
                      return AnswerSearch(context_.store, context_.identity, context_.metrics,
                                          *request, deadline, *response);
                    });
}

}  // namespace attic
