#include "client/cpp/cluster/rpc_node_link.h"

#include <grpcpp/client_context.h>

#include <unordered_set>
#include <utility>

#include "attic/v1/admin.grpc.pb.h"
#include "attic/v1/attention.grpc.pb.h"
#include "attic/v1/cluster.grpc.pb.h"
#include "attic/v1/session.grpc.pb.h"
#include "attic/v1/shard.grpc.pb.h"
#include "base/mutex.h"
#include "client/cpp/attend_stream.h"
#include "client/cpp/bidi_stream.h"
#include "client/cpp/cluster/rpc_snapshots.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"

namespace attic {
namespace {

// The unary calls in progress, so that destruction can end them. Thread-safe.
class CallsInProgress {
 public:
  ~CallsInProgress() {
    MutexLock lock(mutex_);
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
    while (!contexts_.empty()) finished_.Wait(mutex_);
  }

  // start(context, request, response, callback) is a method of a stub's async().
  template <typename Request, typename Response, typename Start>
  void Begin(const Request& request, absl::Time deadline, LinkDone<Response> done, Start start) {
    struct Call {
      grpc::ClientContext context;
      Request request;
      Response response;
    };
    auto* call = new Call{.context = {}, .request = request, .response = {}};
    call->context.set_deadline(absl::ToChronoTime(deadline));
    {
      MutexLock lock(mutex_);
      contexts_.insert(&call->context);
    }
    start(&call->context, &call->request, &call->response,
          [this, call, done = std::move(done)](const grpc::Status& status) {
            grpc::ClientContext* const context = &call->context;
            done(status.ok() ? absl::StatusOr<Response>(std::move(call->response))
                             : absl::StatusOr<Response>(wire::FromGrpc(status)));
            Remove(context, [call] { delete call; });
          });
  }

 private:
  // The context shares the channel, which must not be left for this thread to destroy: it goes
  // before the owner of the channel may.
  template <typename Delete>
  void Remove(grpc::ClientContext* context, Delete delete_call) {
    MutexLock lock(mutex_);
    contexts_.erase(context);
    delete_call();
    finished_.NotifyAll();
  }

  Mutex mutex_;
  CondVar finished_;
  std::unordered_set<grpc::ClientContext*> contexts_ ATTIC_GUARDED_BY(mutex_);
};

class RpcAppends final : public LinkAppends {
 public:
  RpcAppends(v1::AttentionService::Stub& stub, LinkAppendHandlers handlers)
      : handlers_(std::move(handlers)) {
    stream_ = Stream::Start(
        {.on_response = [this](v1::AppendResponse& response) { handlers_.on_response(response); },
         .on_finished = [this](const absl::Status& status) { OnFinished(status); }},
        [&stub](grpc::ClientContext* context, auto* reactor) {
          stub.async()->Append(context, reactor);
        });
  }
  ~RpcAppends() override {
    stream_->Cancel();
    MutexLock lock(mutex_);
    while (!finished_) changed_.Wait(mutex_);
  }
  void Send(v1::AppendRequest request) override { stream_->Send(std::move(request)); }

 private:
  using Stream = BidiStream<v1::AppendRequest, v1::AppendResponse>;

  void OnFinished(const absl::Status& status) {
    handlers_.on_finished(status.ok() ? absl::UnavailableError("the node closed the append stream")
                                      : status);
    MutexLock lock(mutex_);
    finished_ = true;
    changed_.NotifyAll();
  }

  const LinkAppendHandlers handlers_;
  std::shared_ptr<Stream> stream_;
  Mutex mutex_;
  CondVar changed_;
  bool finished_ ATTIC_GUARDED_BY(mutex_) = false;
};

class RpcNodeLink final : public NodeLink {
 public:
  RpcNodeLink(const std::shared_ptr<grpc::Channel>& channel, const Limits& limits)
      : cluster_(v1::ClusterService::NewStub(channel)),
        shards_(v1::ShardService::NewStub(channel)),
        sessions_(v1::SessionService::NewStub(channel)),
        attention_(v1::AttentionService::NewStub(channel)),
        admin_(v1::AdminService::NewStub(channel)),
        attend_stream_(*attention_, limits) {}

  void GetMap(const v1::GetMapRequest& request, absl::Time deadline,
              LinkDone<v1::GetMapResponse> done) override {
    calls_.Begin(request, deadline, std::move(done),
                 [this](auto... arguments) { cluster_->async()->GetMap(arguments...); });
  }
  void CallShards(const v1::ShardCalls& request, absl::Time deadline,
                  LinkDone<v1::ShardResults> done) override {
    calls_.Begin(request, deadline, std::move(done),
                 [this](auto... arguments) { shards_->async()->Call(arguments...); });
  }
  void List(const v1::ListRequest& request, absl::Time deadline,
            LinkDone<v1::ListResponse> done) override {
    calls_.Begin(request, deadline, std::move(done),
                 [this](auto... arguments) { sessions_->async()->List(arguments...); });
  }
  void Plan(const v1::PlanRequest& request, absl::Time deadline,
            LinkDone<v1::PlanResponse> done) override {
    calls_.Begin(request, deadline, std::move(done),
                 [this](auto... arguments) { sessions_->async()->Plan(arguments...); });
  }
  void GetStatus(const v1::GetStatusRequest& request, absl::Time deadline,
                 LinkDone<v1::StoreStatus> done) override {
    calls_.Begin(request, deadline, std::move(done),
                 [this](auto... arguments) { admin_->async()->GetStatus(arguments...); });
  }
  void Search(const v1::SearchRequest& request, absl::Time deadline,
              LinkDone<v1::SearchResponse> done) override {
    calls_.Begin(request, deadline, std::move(done),
                 [this](auto... arguments) { attention_->async()->Search(arguments...); });
  }
  uint64_t Attend(v1::AttendRequest request, LinkDone<v1::AttendResponse> done) override {
    return attend_stream_.Start(std::move(request), std::move(done));
  }
  void Abandon(uint64_t call) override { attend_stream_.Abandon(call); }
  std::unique_ptr<LinkAppends> OpenAppends(LinkAppendHandlers handlers) override {
    return std::make_unique<RpcAppends>(*attention_, std::move(handlers));
  }
  absl::Status Export(const v1::ExportRequest& request, absl::Time deadline,
                      const LinkChunkSink& take) override {
    return RpcExport(*sessions_, request, deadline, take);
  }
  std::unique_ptr<LinkImport> OpenImport(absl::Time deadline) override {
    return OpenRpcImport(*sessions_, deadline);
  }

 private:
  const std::unique_ptr<v1::ClusterService::Stub> cluster_;
  const std::unique_ptr<v1::ShardService::Stub> shards_;
  const std::unique_ptr<v1::SessionService::Stub> sessions_;
  const std::unique_ptr<v1::AttentionService::Stub> attention_;
  const std::unique_ptr<v1::AdminService::Stub> admin_;
  AttendStream attend_stream_;
  CallsInProgress calls_;  // ends before the stubs go
};

}  // namespace

std::unique_ptr<NodeLink> MakeRpcNodeLink(const std::string& address, const Limits& limits) {
  return std::make_unique<RpcNodeLink>(wire::MakeChannel(address, limits.message_bytes_max),
                                       limits);
}

}  // namespace attic
