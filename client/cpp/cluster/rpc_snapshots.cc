#include "client/cpp/cluster/rpc_snapshots.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"

namespace attic {
namespace {

absl::Status Silent() {
  return absl::DeadlineExceededError(
      "the node was silent for too long in the middle of a snapshot");
}

// What gRPC's threads tell the one that waits. Thread-safe.
class CallState {
 public:
  void OperationDone(bool ok) {
    MutexLock lock(mutex_);
    operation_ = ok;
    changed_.NotifyAll();
  }
  void CallDone(const grpc::Status& status) {
    MutexLock lock(mutex_);
    status_ = wire::FromGrpc(status);
    changed_.NotifyAll();
  }

  // Whether the operation that was started last went well; none when it did not end by `until`.
  std::optional<bool> WaitForOperation(absl::Time until) {
    MutexLock lock(mutex_);
    while (!operation_.has_value() && absl::Now() < until) {
      changed_.WaitFor(mutex_, WaitTime(until));
    }
    return std::exchange(operation_, std::nullopt);
  }
  absl::Status WaitForEnd() {
    MutexLock lock(mutex_);
    while (!status_.has_value()) changed_.Wait(mutex_);
    return *status_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::optional<bool> operation_ ATTIC_GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ ATTIC_GUARDED_BY(mutex_);
};

// Both calls hold the reactor (AddHold) as long as the waiting thread may start operations: gRPC
// says that a call is done only after that.
class ExportCall final : public grpc::ClientReadReactor<v1::SnapshotChunk> {
 public:
  ExportCall(v1::SessionService::Stub& stub, const v1::ExportRequest& request, absl::Time deadline)
      : request_(request) {
    context_.set_deadline(absl::ToChronoTime(deadline));
    stub.async()->Export(&context_, &request_, this);
    AddHold();
    StartRead(&chunk_);
    StartCall();
  }

  absl::Status Run(const LinkChunkSink& take) {
    absl::Status taken;
    for (;;) {
      const std::optional<bool> read = state_.WaitForOperation(absl::Now() + kSnapshotIdleTimeout);
      if (!read.has_value()) taken = Silent();
      if (read.has_value() && *read) taken = take(chunk_);
      if (!read.value_or(false) || !taken.ok()) break;
      chunk_.Clear();
      StartRead(&chunk_);
    }
    if (!taken.ok()) context_.TryCancel();
    RemoveHold();
    const absl::Status status = state_.WaitForEnd();
    return taken.ok() ? status : taken;
  }

  void OnReadDone(bool ok) override { state_.OperationDone(ok); }
  void OnDone(const grpc::Status& status) override { state_.CallDone(status); }

 private:
  const v1::ExportRequest request_;
  grpc::ClientContext context_;
  v1::SnapshotChunk chunk_;
  CallState state_;
};

class ImportCall final : public LinkImport, public grpc::ClientWriteReactor<v1::SnapshotChunk> {
 public:
  ImportCall(v1::SessionService::Stub& stub, absl::Time deadline) {
    context_.set_deadline(absl::ToChronoTime(deadline));
    stub.async()->Import(&context_, &response_, this);
    AddHold();
    StartCall();
  }
  ~ImportCall() override {
    if (!ended_.has_value()) End(absl::CancelledError("given up"));
  }

  absl::Status Write(v1::SnapshotChunk chunk) override {
    if (ended_.has_value()) return *ended_;
    if (!WaitForWrite()) return *ended_;
    chunk_ = std::move(chunk);
    writing_ = true;
    StartWrite(&chunk_);
    return absl::OkStatus();
  }

  void WritesDone() override {
    if (ended_.has_value() || !WaitForWrite()) return;
    StartWritesDone();
    RemoveHold();
    closed_ = true;
  }

  absl::StatusOr<v1::SessionDescription> Finish() override {
    if (!closed_) WritesDone();
    if (!ended_.has_value()) ended_ = state_.WaitForEnd();
    if (!ended_->ok()) return *ended_;
    return std::move(response_);
  }

  void OnWriteDone(bool ok) override { state_.OperationDone(ok); }
  void OnDone(const grpc::Status& status) override { state_.CallDone(status); }

 private:
  // False when the call has ended.
  bool WaitForWrite() {
    if (!writing_) return true;
    writing_ = false;
    const std::optional<bool> written = state_.WaitForOperation(absl::Now() + kSnapshotIdleTimeout);
    if (written.value_or(false)) return true;
    End(written.has_value() ? absl::OkStatus() : Silent());
    return false;
  }

  // `why`: OK when the node ended the call, and says itself what is wrong.
  void End(const absl::Status& why) {
    if (!why.ok()) context_.TryCancel();
    if (!closed_) RemoveHold();
    closed_ = true;
    absl::Status status = state_.WaitForEnd();
    if (status.ok()) status = absl::UnavailableError("the node did not take all of a snapshot");
    ended_ = why.ok() ? status : why;
  }

  grpc::ClientContext context_;
  v1::SessionDescription response_;
  v1::SnapshotChunk chunk_;  // of the write in progress
  bool writing_ = false;
  bool closed_ = false;  // no further operation is started
  std::optional<absl::Status> ended_;
  CallState state_;
};

}  // namespace

absl::Status RpcExport(v1::SessionService::Stub& stub, const v1::ExportRequest& request,
                       absl::Time deadline, const LinkChunkSink& take) {
  ExportCall call(stub, request, deadline);
  return call.Run(take);
}

std::unique_ptr<LinkImport> OpenRpcImport(v1::SessionService::Stub& stub, absl::Time deadline) {
  return std::make_unique<ImportCall>(stub, deadline);
}

}  // namespace attic
