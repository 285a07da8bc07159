#include "server/service/snapshot_streams.h"

#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
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
  ExportStream(grpc::CallbackServerContext* context, SessionStore& store, Executor& executor,
               StreamRegistry& streams, std::string session_id)
      : context_(context),
        store_(store),
        executor_(executor),
        streams_(streams),
        session_id_(std::move(session_id)) {}

  void Start() {
    streams_.Add(this);
    Schedule();
  }

  void Drain() override { draining_ = true; }
  void OnWriteDone(bool ok) override {
    if (ok) {
      Schedule();
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override {
    streams_.Remove(this);
    delete this;
  }

 private:
  void Schedule() {
    const absl::Status queued = executor_.Schedule([this] { Step(); });
    if (!queued.ok()) Finish(ToGrpcStatus(queued));
  }

  void Step() {
    const absl::StatusOr<bool> more = Fill();
    if (more.ok() && *more) {
      StartWrite(&chunk_);
    } else {
      Finish(ToGrpcStatus(more.status()));
    }
  }

  absl::StatusOr<bool> Fill() {
    if (draining_) return Draining();
    if (context_->IsCancelled()) return absl::CancelledError("the caller left");
    chunk_.Clear();
    if (source_ == nullptr) {
      ATTIC_ASSIGN_OR_RETURN(source_, store_.ExportSession(session_id_));
      chunk_.set_total_bytes(source_->bytes_estimated());
    }
    return source_->Next(*chunk_.mutable_data());
  }

  grpc::CallbackServerContext* const context_;
  SessionStore& store_;
  Executor& executor_;
  StreamRegistry& streams_;
  const std::string session_id_;
  std::atomic<bool> draining_{false};
  // Of the step that runs.
  std::unique_ptr<SnapshotSource> source_;
  v1::SnapshotChunk chunk_;
};

class ImportStream final : public grpc::ServerReadReactor<v1::SnapshotChunk>,
                           public DrainableStream {
 public:
  ImportStream(grpc::CallbackServerContext* context, SessionStore& store, Executor& executor,
               StreamRegistry& streams, v1::SessionDescription* response)
      : context_(context),
        store_(store),
        executor_(executor),
        streams_(streams),
        response_(response) {}

  void Start() {
    streams_.Add(this);
    StartRead(&chunk_);
  }

  // A caller that sends nothing is cut off when the store's patience ends.
  void Drain() override { draining_ = true; }
  void OnReadDone(bool ok) override {
    const absl::Status queued = executor_.Schedule([this, ok] { Step(ok); });
    if (!queued.ok()) Finish(ToGrpcStatus(queued));
  }
  void OnDone() override {
    streams_.Remove(this);
    delete this;
  }

 private:
  void Step(bool has_chunk) {
    const absl::Status status = has_chunk ? Take() : End();
    if (has_chunk && status.ok()) {
      StartRead(&chunk_);
      return;
    }
    sink_.reset();
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
      ATTIC_ASSIGN_OR_RETURN(sink_, store_.ImportSession(options));
    }
    return sink_->Write(chunk_.data());
  }

  absl::Status End() {
    if (context_->IsCancelled()) return absl::CancelledError("the caller left");
    if (sink_ == nullptr) return absl::InvalidArgumentError("data: no chunk came");
    ATTIC_ASSIGN_OR_RETURN(const SessionDescription description, sink_->Finish());
    *response_ = wire::ToWire(description);
    return absl::OkStatus();
  }

  grpc::CallbackServerContext* const context_;
  SessionStore& store_;
  Executor& executor_;
  StreamRegistry& streams_;
  v1::SessionDescription* const response_;
  std::atomic<bool> draining_{false};
  // Of the step that runs.
  std::unique_ptr<SnapshotSink> sink_;
  v1::SnapshotChunk chunk_;
};

}  // namespace

grpc::ServerWriteReactor<v1::SnapshotChunk>* ServeExport(grpc::CallbackServerContext* context,
                                                         SessionStore& store, Executor& executor,
                                                         StreamRegistry& streams,
                                                         const std::string& session_id) {
  auto* stream = new ExportStream(context, store, executor, streams, session_id);
  stream->Start();
  return stream;
}

grpc::ServerReadReactor<v1::SnapshotChunk>* ServeImport(grpc::CallbackServerContext* context,
                                                        SessionStore& store, Executor& executor,
                                                        StreamRegistry& streams,
                                                        v1::SessionDescription* response) {
  auto* stream = new ImportStream(context, store, executor, streams, response);
  stream->Start();
  return stream;
}

}  // namespace attic
