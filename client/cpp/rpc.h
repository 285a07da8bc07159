// What every remote call needs beside the channel (wire/channel.h): deadlines, and one way to make
// it.
#ifndef ATTIC_CLIENT_CPP_RPC_H_
#define ATTIC_CLIENT_CPP_RPC_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "wire/channel.h"

namespace attic {

// The time until `deadline` for waiting on a condition: not negative, at most an hour, so that
// waits loop.
std::chrono::nanoseconds WaitTime(absl::Time deadline);

// UNAVAILABLE naming the address when no gRPC server answers within `timeout`.
absl::Status WaitForConnected(grpc::Channel& channel, const std::string& address,
                              absl::Duration timeout);

// One unary call, its errors as of wire::FromGrpc: method(context, request, response) is the
// stub's.
template <typename Response, typename Request, typename Method>
absl::StatusOr<Response> CallUnary(const Request& request, absl::Time deadline, Method method) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  Response response;
  const grpc::Status status = method(&context, request, &response);
  if (!status.ok()) return wire::FromGrpc(status);
  return response;
}

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_RPC_H_
