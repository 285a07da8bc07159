// Answers a unary call on an executor.
#ifndef ATTIC_SERVER_SERVICE_UNARY_CALL_H_
#define ATTIC_SERVER_SERVICE_UNARY_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"

namespace attic {

grpc::Status ToGrpcStatus(const absl::Status& status);

// InfiniteFuture when the call has none.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

// Runs `work` with the call's deadline on `executor`, ends `timer` and finishes the call with its
// status. A call whose deadline passed, or whose caller left, while it waited in the queue is not
// worked on.
grpc::ServerUnaryReactor* ServeUnary(grpc::CallbackServerContext* context, Executor& executor,
                                     const CallTimer& timer,
                                     std::function<absl::Status(absl::Time deadline)> work);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_UNARY_CALL_H_
