#include "tests/unit/client/cluster/fake_cluster.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "api/shard.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/cluster_client.h"
#include "wire/convert.h"
#include "wire/convert_cluster.h"

namespace attic {
namespace {

absl::Status Dead() { return absl::UnavailableError("the node is dead"); }

absl::StatusOr<SessionDescription> AnswerCall(SessionStore& store, const v1::ShardCall& call,
                                              const std::vector<PrefixHash>& hashes) {
  switch (call.call_case()) {
    case v1::ShardCall::kOpen: {
      ATTIC_ASSIGN_OR_RETURN(OpenSessionRequest open, wire::FromWire(call.open()));
      if (!open.placement.has_value()) return absl::FailedPreconditionError("placement: none");
      if (open.prefix_hashes.empty()) open.prefix_hashes = hashes;
      return store.OpenSession(open);
    }
    case v1::ShardCall::kDescribe:
      return store.DescribeSession(call.describe().session_id());
    case v1::ShardCall::kFork: {
      ATTIC_ASSIGN_OR_RETURN(const ForkOptions options, wire::FromWire(call.fork()));
      return store.ForkSession(call.fork().session_id(), options);
    }
    case v1::ShardCall::kTruncate:
      return store.TruncateSession(call.truncate().session_id(), call.truncate().position());
    case v1::ShardCall::kFlush:
      return store.FlushSession(call.flush().session_id(), absl::InfiniteFuture());
    case v1::ShardCall::kExtendPrefix:
      return store.ExtendPrefix(call.extend_prefix().session_id(),
                                call.extend_prefix().first_block(), hashes);
    case v1::ShardCall::kRenewLease:
      return store.RenewLease(call.renew_lease().session_id());
    case v1::ShardCall::kPin:
      return store.PinSession(call.pin().session_id(), call.pin().pinned());
    case v1::ShardCall::kClose: {
      ATTIC_RETURN_IF_ERROR(store.CloseSession(call.close().session_id()));
      return SessionDescription();
    }
    default:
      return absl::InvalidArgumentError("call: none");
  }
}

}  // namespace

// Requests are answered in order by one thread at a time.
class FakeAppends final : public LinkAppends {
 public:
  FakeAppends(FakeNode& node, LinkAppendHandlers handlers)
      : node_(node), handlers_(std::move(handlers)) {
    MutexLock lock(node_.mutex_);
    node_.streams_.insert(this);
    broken_ = node_.store_ == nullptr;
  }
  ~FakeAppends() override {
    {
      MutexLock lock(node_.mutex_);
      node_.streams_.erase(this);
    }
    MutexLock lock(*mutex_);
    closing_ = true;
    *gone_ = true;
    while (busy_) idle_.Wait(*mutex_);
  }
  void Send(v1::AppendRequest request) override {
    MutexLock lock(*mutex_);
    queue_.push_back(std::move(request));
    Wake();
  }
  void Break() {
    MutexLock lock(*mutex_);
    broken_ = true;
    Wake();
  }

 private:
  void Wake() ATTIC_REQUIRES(mutex_) {
    if (scheduled_ || closing_ || finished_) return;
    scheduled_ = true;
    node_.Schedule([this, mutex = mutex_, gone = gone_] {
      {
        MutexLock lock(*mutex);
        if (*gone) return;
        scheduled_ = false;
        if (busy_) return;  // whoever is finds the rest
        busy_ = true;
      }
      Work();
    });
  }
  void Work() {
    for (;;) {
      v1::AppendRequest request;
      {
        MutexLock lock(*mutex_);
        if (closing_ || finished_ || (!broken_ && queue_.empty())) {
          busy_ = false;
          idle_.NotifyAll();
          return;
        }
        finished_ = broken_;
        if (!broken_) {
          request = std::move(queue_.front());
          queue_.pop_front();
        }
      }
      if (finished_) {
        handlers_.on_finished(Dead());
        continue;
      }
      const v1::AppendResponse response = node_.Answer(request);
      bool lost = false;
      {
        MutexLock lock(*mutex_);
        lost = broken_;
      }
      if (!lost) handlers_.on_response(response);
    }
  }

  FakeNode& node_;
  const LinkAppendHandlers handlers_;
  const std::shared_ptr<Mutex> mutex_ = std::make_shared<Mutex>();
  const std::shared_ptr<bool> gone_ = std::make_shared<bool>(false);
  CondVar idle_;
  std::deque<v1::AppendRequest> queue_;
  bool scheduled_ = false, busy_ = false, broken_ = false, finished_ = false, closing_ = false;
};

class FakeImport final : public LinkImport {
 public:
  explicit FakeImport(FakeNode& node) : node_(node), store_(node.store()) {}

  absl::Status Write(v1::SnapshotChunk chunk) override {
    if (error_.ok()) error_ = Take(chunk);
    return error_;
  }
  void WritesDone() override {}
  absl::StatusOr<v1::SessionDescription> Finish() override {
    if (node_.dead() || node_.store() != store_) return Dead();
    ATTIC_RETURN_IF_ERROR(error_);
    if (sink_ == nullptr) return absl::InvalidArgumentError("data: no chunk came");
    ATTIC_ASSIGN_OR_RETURN(const SessionDescription made, sink_->Finish());
    sink_.reset();
    return wire::ToWire(made);
  }

 private:
  absl::Status Take(const v1::SnapshotChunk& chunk) {
    if (!node_.PassChunk() || store_ == nullptr || node_.store() != store_) return Dead();
    if (sink_ == nullptr) {
      ATTIC_ASSIGN_OR_RETURN(ImportOptions options, wire::FromWire(chunk));
      if (node_.old_release) options.placement.reset();
      ATTIC_ASSIGN_OR_RETURN(
          sink_, store_->ImportSession(
                     options, [this, epoch = options.epoch](const OpenSessionRequest& request) {
                       return node_.CheckEpoch(epoch, request.placement->slot);
                     }));
    }
    return sink_->Write(chunk.data());
  }

  FakeNode& node_;
  const std::shared_ptr<SessionStore> store_;  // outlives the sink
  std::unique_ptr<SnapshotSink> sink_;
  absl::Status error_;
};

class FakeLink final : public NodeLink {
 public:
  explicit FakeLink(FakeNode& node) : node_(node) {}

  void GetMap(const v1::GetMapRequest& request, absl::Time,
              LinkDone<v1::GetMapResponse> done) override {
    Run<v1::GetMapResponse>(std::move(done), [node = &node_, request](SessionStore&) {
      v1::GetMapResponse response;
      const auto map = node->map();
      if (map->epoch > request.known_epoch()) *response.mutable_map() = wire::ToWire(*map);
      return absl::StatusOr<v1::GetMapResponse>(response);
    });
  }
  void CallShards(const v1::ShardCalls& request, absl::Time,
                  LinkDone<v1::ShardResults> done) override {
    Run<v1::ShardResults>(
        std::move(done), [node = &node_, request](SessionStore&) { return node->Answer(request); });
  }
  void List(const v1::ListRequest& request, absl::Time, LinkDone<v1::ListResponse> done) override {
    Run<v1::ListResponse>(std::move(done), [request](SessionStore& store) {
      v1::ListResponse response;
      const auto page = store.ListSessions(request.after_session_id(), request.page_size());
      for (const SessionDescription& one : page) *response.add_sessions() = wire::ToWire(one);
      response.set_more(page.size() == request.page_size());
      return absl::StatusOr<v1::ListResponse>(response);
    });
  }
  void Plan(const v1::PlanRequest& request, absl::Time, LinkDone<v1::PlanResponse> done) override {
    Run<v1::PlanResponse>(
        std::move(done), [request](SessionStore& store) -> absl::StatusOr<v1::PlanResponse> {
          ATTIC_ASSIGN_OR_RETURN(const auto plans, store.PlanSession(request.session_id()));
          v1::PlanResponse response;
          for (const HeadPlan& plan : plans) *response.add_heads() = wire::ToWire(plan);
          return response;
        });
  }
  void GetStatus(const v1::GetStatusRequest&, absl::Time, LinkDone<v1::StoreStatus> done) override {
    Run<v1::StoreStatus>(std::move(done), [](SessionStore& store) {
      return absl::StatusOr<v1::StoreStatus>(wire::ToWire(store.Status()));
    });
  }
  void Search(const v1::SearchRequest& request, absl::Time deadline,
              LinkDone<v1::SearchResponse> done) override {
    Run<v1::SearchResponse>(
        std::move(done),
        [request, deadline](SessionStore& store) -> absl::StatusOr<v1::SearchResponse> {
          std::vector<float> queries;
          ATTIC_ASSIGN_OR_RETURN(const SearchRequest search, wire::FromWire(request, queries));
          ATTIC_ASSIGN_OR_RETURN(const SearchAnswer answer, store.Search(search, deadline));
          return wire::ToWire(answer);
        });
  }
  uint64_t Attend(v1::AttendRequest request, LinkDone<v1::AttendResponse> done) override {
    Run<v1::AttendResponse>(
        std::move(done), [node = &node_, request](SessionStore&) { return node->Answer(request); });
    return 1;
  }
  void Abandon(uint64_t) override {}
  std::unique_ptr<LinkAppends> OpenAppends(LinkAppendHandlers handlers) override {
    return std::make_unique<FakeAppends>(node_, std::move(handlers));
  }
  absl::Status Export(const v1::ExportRequest& request, absl::Time,
                      const LinkChunkSink& take) override {
    const std::shared_ptr<SessionStore> store = node_.store();
    if (store == nullptr) return Dead();
    auto source = store->ExportSession(
        request.session_id(), node_.old_release ? ExportOptions() : wire::FromWire(request));
    if (!source.ok()) return node_.Missing(source.status());
    for (v1::SnapshotChunk chunk;; chunk.Clear()) {
      ATTIC_ASSIGN_OR_RETURN(const bool more, (*source)->Next(*chunk.mutable_data()));
      if (!more) return absl::OkStatus();
      if (!node_.PassChunk()) return Dead();
      ATTIC_RETURN_IF_ERROR(take(chunk));
    }
  }
  std::unique_ptr<LinkImport> OpenImport(absl::Time) override {
    return std::make_unique<FakeImport>(node_);
  }

 private:
  template <typename Response>
  void Run(LinkDone<Response> done, std::function<absl::StatusOr<Response>(SessionStore&)> body) {
    node_.Schedule([node = &node_, done = std::move(done), body = std::move(body)] {
      const std::shared_ptr<SessionStore> store = node->store();
      if (store == nullptr) return done(Dead());
      absl::StatusOr<Response> response = body(*store);
      done(node->dead() ? absl::StatusOr<Response>(Dead()) : std::move(response));
    });
  }

  FakeNode& node_;  // outlives all links, and the calls that are still going on when one goes
};

FakeNode::FakeNode(std::string id, const SessionStoreOptions& options, const SharedMap& map)
    : id_(std::move(id)),
      options_(options),
      shared_map_(map),
      store_(SessionStore::Create(options)) {}

FakeNode::~FakeNode() { Resume(); }

void FakeNode::Kill() {
  std::shared_ptr<SessionStore> gone;
  {
    MutexLock lock(mutex_);
    gone.swap(store_);
  }
  BreakStreams();
  Resume();
}

bool FakeNode::PassChunk() {
  if (chunks_to_live >= 0 && --chunks_to_live < 0) Kill();
  return !dead();
}

void FakeNode::Restart() {
  MutexLock lock(mutex_);
  store_ = SessionStore::Create(options_);
}

void FakeNode::BreakStreams() {
  MutexLock lock(mutex_);
  // Break schedules on the pool, which takes the lock again: not from here.
  for (FakeAppends* const stream : streams_) {
    pool_.Schedule([this, stream] {
      {
        MutexLock again(mutex_);
        if (!streams_.contains(stream)) return;
      }
      stream->Break();
    });
  }
}

void FakeNode::Pause() {
  MutexLock lock(mutex_);
  paused_ = true;
}

void FakeNode::Resume() {
  MutexLock lock(mutex_);
  paused_ = false;
  for (auto& task : held_) pool_.Schedule(std::move(task));
  held_.clear();
}

void FakeNode::FreezeMap() {
  MutexLock lock(mutex_);
  frozen_ = shared_map_.Get();
}

void FakeNode::Thaw() {
  MutexLock lock(mutex_);
  frozen_ = nullptr;
}

std::shared_ptr<SessionStore> FakeNode::store() const {
  MutexLock lock(mutex_);
  return store_;
}

bool FakeNode::dead() const {
  MutexLock lock(mutex_);
  return store_ == nullptr;
}

std::shared_ptr<const ClusterMap> FakeNode::map() const {
  MutexLock lock(mutex_);
  return frozen_ != nullptr ? frozen_ : shared_map_.Get();
}

std::unique_ptr<NodeLink> FakeNode::Link() { return std::make_unique<FakeLink>(*this); }

void FakeNode::Schedule(std::function<void()> task) {
  MutexLock lock(mutex_);
  if (paused_) {
    held_.push_back(std::move(task));
  } else {
    pool_.Schedule(std::move(task));
  }
}

absl::Status FakeNode::CheckEpoch(uint64_t epoch, int64_t slot) const {
  const auto known = map();
  if (epoch > known->epoch) return absl::UnavailableError("epoch: newer than the node's map");
  if (slot < 0) return absl::OkStatus();
  const SlotAssignment& assignment = known->slots[static_cast<size_t>(slot)];
  const auto self = static_cast<uint32_t>(known->FindNode(id_));
  const auto among = [&](const std::vector<uint32_t>& nodes) {
    return std::find(nodes.begin(), nodes.end(), self) != nodes.end();
  };
  if (epoch >= assignment.epoch && (among(assignment.replicas) || among(assignment.incoming))) {
    return absl::OkStatus();
  }
  return absl::AbortedError("stale epoch");
}

absl::Status FakeNode::Missing(const absl::Status& status) const {
  const auto known = map();
  const int64_t self = known->FindNode(id_);
  if (!absl::IsNotFound(status) || known->nodes[self].state == NodeState::kLive) return status;
  return absl::UnavailableError("the session is not on this node, which is not filled yet");
}

absl::StatusOr<v1::ShardResults> FakeNode::Answer(const v1::ShardCalls& calls) {
  const std::shared_ptr<SessionStore> store = this->store();
  if (store == nullptr) return Dead();
  ATTIC_RETURN_IF_ERROR(CheckEpoch(calls.epoch(), -1));
  ATTIC_ASSIGN_OR_RETURN(const auto hashes, wire::PrefixHashesFromWire(calls.prefix_hashes()));
  v1::ShardResults results;
  results.set_epoch(map()->epoch);
  for (const v1::ShardCall& call : calls.calls()) {
    v1::ShardResult& result = *results.add_results();
    absl::Status allowed;
    if (call.has_open()) allowed = CheckEpoch(calls.epoch(), call.open().placement().slot());
    const absl::StatusOr<SessionDescription> answer =
        allowed.ok() ? AnswerCall(*store, call, hashes)
                     : absl::StatusOr<SessionDescription>(allowed);
    if (answer.ok() && !call.has_close()) *result.mutable_session() = wire::ToWire(*answer);
    if (!answer.ok()) *result.mutable_error() = wire::ToWire(Missing(answer.status()));
  }
  return results;
}

absl::StatusOr<v1::AttendResponse> FakeNode::Answer(const v1::AttendRequest& request) {
  const std::shared_ptr<SessionStore> store = this->store();
  if (store == nullptr) return Dead();
  ++attends;
  std::vector<std::vector<float>> queries(static_cast<size_t>(request.items_size()));
  std::vector<AttendItem> items;
  for (int i = 0; i < request.items_size(); ++i) {
    ATTIC_ASSIGN_OR_RETURN(AttendItem item, wire::FromWire(request.items(i), request.layer(),
                                                           queries[static_cast<size_t>(i)]));
    items.push_back(std::move(item));
  }
  ATTIC_ASSIGN_OR_RETURN(const auto answers, store->Attend(items, absl::InfiniteFuture()));
  v1::AttendResponse response;
  response.set_epoch(map()->epoch);
  response.set_boot_id(id_);
  for (const AttendAnswer& answer : answers) *response.add_items() = wire::ToWire(answer);
  return response;
}

v1::AppendResponse FakeNode::Answer(const v1::AppendRequest& request) {
  ++appends;
  v1::AppendResponse response;
  const auto append = [&]() -> absl::StatusOr<AppendAck> {
    const std::shared_ptr<SessionStore> store = this->store();
    if (store == nullptr) return Dead();
    ATTIC_ASSIGN_OR_RETURN(const auto held, store->DescribeSession(request.session_id()));
    if (!held.placement.has_value()) return absl::InternalError("placement: none");
    ATTIC_RETURN_IF_ERROR(CheckEpoch(request.epoch(), held.placement->slot));
    std::vector<float> sample;
    ATTIC_ASSIGN_OR_RETURN(const AppendBatch batch, wire::FromWire(request, sample));
    return store->Append(batch, absl::Now() + absl::Seconds(30));
  };
  const absl::StatusOr<AppendAck> ack = append();
  response.set_session_id(request.session_id());
  response.set_layer(request.layer());
  if (ack.ok()) {
    response.set_watermark(ack->watermark);
    response.set_durable_watermark(ack->durable_watermark);
  } else {
    *response.mutable_error() = wire::ToWire(Missing(ack.status()));
  }
  return response;
}

FakeCluster::FakeCluster(size_t nodes, uint32_t replicas, uint64_t seed,
                         const SessionStoreOptions& options, size_t slots) {
  ClusterMap map{.cluster = "test", .epoch = 1, .replicas_default = replicas};
  std::vector<uint32_t> order(nodes);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed);
  for (size_t n = 0; n < nodes; ++n) {
    const std::string id = absl::StrCat("n", n);
    map.nodes.push_back({.id = id, .address = id});
  }
  for (size_t s = 0; s < slots; ++s) {
    std::shuffle(order.begin(), order.end(), random);
    map.slots.push_back(
        {.replicas = {order.begin(), order.begin() + replicas}, .incoming = {}, .epoch = 1});
  }
  ATTIC_CHECK(ValidateClusterMap(map).ok());
  map_.Set(map);
  SessionStoreOptions of_node = options;
  of_node.node_of_cluster = true;
  for (const ClusterNode& node : map.nodes) {
    nodes_.push_back(std::make_unique<FakeNode>(node.id, of_node, map_));
  }
}

void FakeCluster::ChangeMap(const std::function<void(ClusterMap&)>& change) {
  const ClusterMap before = *map_.Get();
  ClusterMap next = before;
  ++next.epoch;
  change(next);
  // Who does not know that a replica came back would leave it out.
  const auto came_back = [&](uint32_t node) {
    return before.nodes[node].state == NodeState::kDown &&
           next.nodes[node].state != NodeState::kDown;
  };
  for (size_t s = 0; s < before.slots.size(); ++s) {
    SlotAssignment& slot = next.slots[s];
    const bool changed = before.slots[s] != slot ||
                         std::any_of(slot.replicas.begin(), slot.replicas.end(), came_back);
    if (changed) slot.epoch = next.epoch;
  }
  ATTIC_CHECK(ValidateClusterMap(next).ok());
  map_.Set(std::move(next));
}

void FakeCluster::SetState(size_t node, NodeState state) {
  ChangeMap([&](ClusterMap& map) { map.nodes[node].state = state; });
}

std::unique_ptr<Client> FakeCluster::Connect(ClientOptions options) {
  return MakeClusterClient(
      options,
      [this](const std::string& address) {
        return nodes_[static_cast<size_t>(std::stoi(address.substr(1)))]->Link();
      },
      *map_.Get(), {});
}

void FakeCluster::Repair(size_t node) {
  const auto map = map_.Get();
  const std::shared_ptr<SessionStore> own = nodes_[node]->store();
  for (size_t n = 0; n < nodes_.size(); ++n) {
    const std::shared_ptr<SessionStore> other = nodes_[n]->store();
    if (n == node || other == nullptr || map->nodes[n].state != NodeState::kLive) continue;
    for (const SessionDescription& session : other->ListSessions("", 100000)) {
      const SlotAssignment& slot = map->slots[session.placement->slot];
      const auto replicas = ReplicasOf(slot, session.placement->replication.replicas);
      const bool wanted =
          std::find(replicas.begin(), replicas.end(), node) != replicas.end() ||
          std::find(slot.incoming.begin(), slot.incoming.end(), node) != slot.incoming.end();
      if (!wanted) continue;
      const auto held = own->DescribeSession(session.session_id);
      if (held.ok() && held->watermark >= session.watermark) continue;
      if (held.ok()) ATTIC_CHECK(own->CloseSession(session.session_id).ok());
      auto source = other->ExportSession(session.session_id);
      auto sink = own->ImportSession({});
      ATTIC_CHECK(source.ok() && sink.ok());
      std::string chunk;
      while (*(*source)->Next(chunk)) ATTIC_CHECK((*sink)->Write(chunk).ok());
      ATTIC_CHECK((*sink)->Finish().ok());
    }
  }
}

}  // namespace attic
