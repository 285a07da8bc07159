#include "server/service/snapshot_streams.h"

#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/service/session_gate.h"
#include "server/service/unary_call.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr size_t kChunkBytesMax = 1u << 20;

const absl::Status& Draining() {
  static const absl::Status* const status =
      new absl::Status(absl::UnavailableError("the store is shutting down"));
  return *status;
}

// Steps of one call, one after the other: each runs on the executor, and what it starts of gRPC
// leads to the next. Finish is called once, by the last step. That the caller is gone is found out
// by gRPC's failing.
class ExportStream final : public grpc::ServerWriteReactor<v1::SnapshotChunk>,
                           public DrainableStream {
 public:
  ExportStream(grpc::CallbackServerContext* context, const SnapshotContext& server,
               std::string session_id, const ExportOptions& options)
      : context_(context),
        server_(server),
        timer_(server.metrics, Method::kExport),
        session_id_(std::move(session_id)),
        options_(options) {}

  void Start() {
    server_.streams.Add(this);
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
    server_.streams.Remove(this);
    delete this;
  }

 private:
  void Schedule() {
    const absl::Status queued = server_.executor.Schedule([this] { Step(); });
    if (!queued.ok()) End(queued);
  }

  void Step() {
    const absl::StatusOr<bool> more = Fill();
    if (more.ok() && *more) {
      StartWrite(&chunk_);
    } else {
      End(more.status());
    }
  }

  void End(const absl::Status& status) {
    timer_.End(status.code());
    Finish(ToGrpcStatus(status));
  }

  absl::StatusOr<bool> Fill() {
    if (draining_) return Draining();
    if (context_->IsCancelled()) return absl::CancelledError("the caller left");
    chunk_.Clear();
    if (source_ == nullptr) {
      ATTIC_ASSIGN_OR_RETURN(source_,
                             ExportThroughGate(server_.store, server_.gate, session_id_, options_));
      chunk_.set_total_bytes(source_->bytes_estimated());
    }
    return source_->Next(*chunk_.mutable_data());
  }

  grpc::CallbackServerContext* const context_;
  const SnapshotContext server_;
  const CallTimer timer_;
  const std::string session_id_;
  const ExportOptions options_;
  std::atomic<bool> draining_{false};
  // Of the step that runs.
  std::unique_ptr<SnapshotSource> source_;
  v1::SnapshotChunk chunk_;
};

class ImportStream final : public grpc::ServerReadReactor<v1::SnapshotChunk>,
                           public DrainableStream {
 public:
  ImportStream(grpc::CallbackServerContext* context, const SnapshotContext& server,
               v1::SessionDescription* response)
      : context_(context),
        server_(server),
        timer_(server.metrics, Method::kImport),
        response_(response) {}

  void Start() {
    server_.streams.Add(this);
    StartRead(&chunk_);
  }

  // A caller that sends nothing is cut off when the store's patience ends.
  void Drain() override { draining_ = true; }
  void OnReadDone(bool ok) override {
    const absl::Status queued = server_.executor.Schedule([this, ok] { Step(ok); });
    if (!queued.ok()) End(queued);
  }
  void OnDone() override {
    server_.streams.Remove(this);
    delete this;
  }

 private:
  void Step(bool has_chunk) {
    const absl::Status status = has_chunk ? Take() : Complete();
    if (has_chunk && status.ok()) {
      StartRead(&chunk_);
      return;
    }
    sink_.reset();
    End(status);
  }

  void End(const absl::Status& status) {
    timer_.End(status.code());
    Finish(ToGrpcStatus(status));
  }

  absl::Status Take() {
    if (draining_) return Draining();
    if (chunk_.data().size() > kChunkBytesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("data: ", chunk_.data().size(), " bytes, at most ", kChunkBytesMax));
    }
    if (sink_ == nullptr) {
      ATTIC_ASSIGN_OR_RETURN(const ImportOptions options, wire::FromWire(chunk_));
      ATTIC_ASSIGN_OR_RETURN(sink_, ImportThroughGate(server_.store, server_.gate, options));
    }
    return sink_->Write(chunk_.data());
  }

  absl::Status Complete() {
    if (context_->IsCancelled()) return absl::CancelledError("the caller left");
    if (sink_ == nullptr) return absl::InvalidArgumentError("data: no chunk came");
    ATTIC_ASSIGN_OR_RETURN(const SessionDescription description, sink_->Finish());
    *response_ = wire::ToWire(description);
    return absl::OkStatus();
  }

  grpc::CallbackServerContext* const context_;
  const SnapshotContext server_;
  const CallTimer timer_;
  v1::SessionDescription* const response_;
  std::atomic<bool> draining_{false};
  // Of the step that runs.
  std::unique_ptr<SnapshotSink> sink_;
  v1::SnapshotChunk chunk_;
};

}  // namespace

grpc::ServerWriteReactor<v1::SnapshotChunk>* ServeExport(grpc::CallbackServerContext* context,
                                                         const SnapshotContext& server,
                                                         const v1::ExportRequest& request) {
  auto* stream = new ExportStream(context, server, request.session_id(), wire::FromWire(request));
  stream->Start();
  return stream;
}

grpc::ServerReadReactor<v1::SnapshotChunk>* ServeImport(grpc::CallbackServerContext* context,
                                                        const SnapshotContext& server,
                                                        v1::SessionDescription* response) {
  auto* stream = new ImportStream(context, server, response);
  stream->Start();
  return stream;
}

}  // namespace attic
