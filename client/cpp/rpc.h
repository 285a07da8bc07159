// What every remote call needs: the channel, deadlines, and errors translated from gRPC.
#ifndef ATTIC_CLIENT_CPP_RPC_H_
#define ATTIC_CLIENT_CPP_RPC_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace attic {

// The same code (Abseil's and gRPC's numbers are equal) and message, except that CANCELLED becomes
// UNAVAILABLE: this library cancels no call that somebody waits for, so the peer did, going away.
absl::Status FromGrpc(const grpc::Status& status);

// The time until `deadline` for waiting on a condition: not negative, at most an hour, so that
// waits loop.
std::chrono::nanoseconds WaitTime(absl::Time deadline);

// A channel of its own connection to `address` that finds a silent peer by keepalive, reconnects
// within a second of the peer's return and carries messages of up to message_bytes_max. Does not
// wait for the connection.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, size_t message_bytes_max);

// UNAVAILABLE naming the address when no gRPC server answers within `timeout`.
absl::Status WaitForConnected(grpc::Channel& channel, const std::string& address,
                              absl::Duration timeout);

// One unary call: method(context, request, response) is the stub's.
template <typename Response, typename Request, typename Method>
absl::StatusOr<Response> CallUnary(const Request& request, absl::Time deadline, Method method) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  Response response;
  const grpc::Status status = method(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_RPC_H_
