// How a node reads what another one streams.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_PEER_STREAM_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_PEER_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "wire/channel.h"

namespace attic {

// The messages of a call that streams them: each is given to take(message), whose error ends the
// call and is returned. start(context, queue) is a stub's PrepareAsync method with its request.
// DEADLINE_EXCEEDED when nothing comes for `idle_timeout`, or the deadline of `context` passes.
template <typename Message>
absl::Status ReadPeerStream(grpc::ClientContext& context,
                            const std::function<std::unique_ptr<grpc::ClientAsyncReader<Message>>(
                                grpc::ClientContext& context, grpc::CompletionQueue& queue)>& start,
                            absl::Duration idle_timeout,
                            const std::function<absl::Status(const Message& message)>& take) {
  grpc::CompletionQueue queue;
  const auto reader = start(context, queue);
  bool idle = false;
  // What the operation that was begun last came to; there is one at a time.
  const auto finish_operation = [&] {
    void* tag = nullptr;
    bool ok = false;
    const auto deadline = absl::ToChronoTime(absl::Now() + idle_timeout);
    if (queue.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::TIMEOUT) {
      idle = true;
      context.TryCancel();
      queue.Next(&tag, &ok);
    }
    return ok && !idle;
  };
  void* const tag = &queue;
  reader->StartCall(tag);
  absl::Status taken;
  bool open = finish_operation();
  Message message;
  while (open && taken.ok()) {
    reader->Read(&message, tag);
    open = finish_operation();
    if (open) taken = take(message);
  }
  if (!taken.ok()) context.TryCancel();
  grpc::Status status;
  reader->Finish(&status, tag);
  finish_operation();
  queue.Shutdown();
  if (!taken.ok()) return taken;
  if (idle) return absl::DeadlineExceededError("peer: nothing came for too long");
  return wire::FromGrpc(status);
}

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_PEER_STREAM_H_
