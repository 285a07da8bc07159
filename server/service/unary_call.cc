#include "server/service/unary_call.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/time/clock.h"

namespace attic {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

grpc::ServerUnaryReactor* ServeUnary(grpc::CallbackServerContext* context, Executor& executor,
                                     const CallTimer& timer,
                                     std::function<absl::Status(absl::Time deadline)> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto finish = [reactor, timer](const absl::Status& status) {
    timer.End(status.code());
    reactor->Finish(ToGrpcStatus(status));
  };
  const absl::Time deadline = DeadlineOf(*context);
  const absl::Status queued =
      executor.Schedule([context, finish, deadline, work = std::move(work)] {
        if (context->IsCancelled()) {
          finish(absl::CancelledError("the caller left"));
        } else if (absl::Now() >= deadline) {
          finish(absl::DeadlineExceededError("deadline passed"));
        } else {
          finish(work(deadline));
        }
      });
  if (!queued.ok()) finish(queued);
  return reactor;
}

}  // namespace attic
