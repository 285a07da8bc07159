#include "client/cpp/cluster/cluster_append.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cpp/rpc.h"
#include "wire/convert.h"

namespace attic {
namespace {

using Stage = ShardWrite::Stage;

// Before a node that refused something in passing is asked again.
constexpr absl::Duration kRetryPause = absl::Milliseconds(20);
// Before one that lags is: each try costs a message, and repair takes longer.
constexpr absl::Duration kLagPause = absl::Milliseconds(100);
constexpr absl::Duration kReopenMin = absl::Milliseconds(20);
constexpr absl::Duration kReopenMax = absl::Milliseconds(500);
// What is acknowledged waits for slow replicas no longer than this.
constexpr absl::Duration kKeepAcknowledged = absl::Seconds(2);

bool IsPassing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
}

}  // namespace

ClusterAppendStream::ClusterAppendStream(std::shared_ptr<ClusterCore> core)
    : core_(std::move(core)), sessions_(*core_) {
  {
    MutexLock lock(mutex_);
    map_ = core_->directory.map();
    last_progress_ = absl::Now();
  }
  tick_ = core_->ticker.Add([this] { return Tick(); });
}

ClusterAppendStream::~ClusterAppendStream() {
  core_->ticker.Remove(tick_);
  std::map<std::string, Connection> nodes;
  std::vector<std::shared_ptr<NodeStream>> ended;
  {
    MutexLock lock(mutex_);
    closing_ = true;
    while (pumping_) changed_.Wait(mutex_);
    nodes.swap(nodes_);
    ended.swap(ended_);
  }
  // Handlers that still run find nothing to do.
  for (auto& [id, node] : nodes) {
    if (node.stream != nullptr) node.stream->appends.reset();
  }
  for (const auto& stream : ended) stream->appends.reset();
}

absl::StatusOr<WriteBatch> ClusterAppendStream::MakeBatch(const AppendBatch& batch) {
  const absl::Time deadline = core_->CallDeadline();
  ATTIC_ASSIGN_OR_RETURN(const auto info, sessions_.Resolve(batch.session_id, deadline));
  ATTIC_ASSIGN_OR_RETURN(std::vector<ShardAppend> appends,
                         SplitBatch(*info, batch, core_->options.limits));
  ATTIC_RETURN_IF_ERROR(
      sessions_.EnsureBlock(*info, batch.layer, appends.back().shard.block, deadline));
  const auto slots = static_cast<uint32_t>(core_->directory.map()->slots.size());
  WriteBatch made{.appended = absl::Now()};
  for (ShardAppend& append : appends) {
    auto write = std::make_shared<ShardWrite>();
    write->info = info;
    write->slot = SlotOfShard(info->placement_key, append.shard, slots);
    write->bytes = append.request.ByteSizeLong();
    write->generation = core_->cache.Generation(info->session_id);
    write->append = std::move(append);
    const size_t bytes_max = core_->options.limits.message_bytes_max;
    if (write->bytes > bytes_max) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "batch of ", write->bytes, " bytes a head is over message_bytes_max = ", bytes_max));
    }
    made.bytes += write->bytes;
    made.writes.push_back(std::move(write));
  }
  return made;
}

absl::Status ClusterAppendStream::Append(const AppendBatch& batch) {
  {
    MutexLock lock(mutex_);
    ATTIC_RETURN_IF_ERROR(error_);
  }
  absl::StatusOr<WriteBatch> made = MakeBatch(batch);
  {
    MutexLock lock(mutex_);
    if (!made.ok()) Fail(made.status());
    ATTIC_RETURN_IF_ERROR(error_);
    ATTIC_RETURN_IF_ERROR(WaitForRoom(made->bytes));
    if (acknowledged_ == batches_.size()) last_progress_ = absl::Now();
    bytes_in_flight_ += made->bytes;
    auto shared = std::make_shared<WriteBatch>(*std::move(made));
    for (const auto& write : shared->writes) {
      const std::string& lane = write->append.request.session_id();
      lanes_[lane].writes.push_back(write);
      ready_.insert(lane);
    }
    batches_.push_back(std::move(shared));
  }
  Pump(Caller::kClient);
  core_->ticker.Wake();
  return absl::OkStatus();
}

absl::Status ClusterAppendStream::WaitForRoom(size_t bytes) {
  const size_t bytes_max = core_->options.limits.append_bytes_in_flight_max;
  size_t in_flight = bytes_in_flight_;
  absl::Time deadline = core_->CallDeadline();
  while (error_.ok() && bytes_in_flight_ > 0 && bytes_in_flight_ + bytes > bytes_max) {
    if (bytes_in_flight_ != in_flight) {
      in_flight = bytes_in_flight_;
      deadline = core_->CallDeadline();
    }
    if (absl::Now() >= deadline) {
      Fail(absl::DeadlineExceededError(absl::StrCat(
          "no append was acknowledged for ", absl::FormatDuration(core_->options.call_timeout),
          " with ", bytes_in_flight_, " bytes in flight (append_bytes_in_flight_max = ", bytes_max,
          "): ", std::string(last_trouble_.message()))));
      break;
    }
    changed_.WaitFor(mutex_, WaitTime(deadline));
  }
  return error_;
}

absl::StatusOr<AppendAck> ClusterAppendStream::Flush(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (error_.ok() && acknowledged_ < batches_.size()) {
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(batches_.size() - acknowledged_,
                       " appends are not acknowledged: ", std::string(last_trouble_.message())));
    }
    changed_.WaitFor(mutex_, WaitTime(deadline));
  }
  if (!error_.ok()) return error_;
  return last_ack_;
}

void ClusterAppendStream::Pump(Caller caller) {
  {
    MutexLock lock(mutex_);
    if (pumping_ || closing_) return;
    pumping_ = true;
  }
  for (;;) {
    std::vector<Outgoing> out;
    std::vector<std::shared_ptr<NodeStream>> ended;
    {
      MutexLock lock(mutex_);
      out = Plan();
      if (caller == Caller::kClient) ended.swap(ended_);
      if (out.empty() && ended.empty()) {
        pumping_ = false;
        changed_.NotifyAll();
        return;
      }
    }
    for (const auto& stream : ended) stream->appends.reset();
    Send(std::move(out));
  }
}

void ClusterAppendStream::Send(std::vector<Outgoing> out) {
  for (Outgoing& one : out) {
    NodeStream* const stream = one.stream.get();
    if (stream->appends == nullptr) {
      stream->appends = stream->node->link->OpenAppends(
          {.on_response = [this, stream](const v1::AppendResponse& r) { OnResponse(*stream, r); },
           .on_finished = [this, stream](const absl::Status& s) { OnFinished(*stream, s); }});
    }
    stream->appends->Send(std::move(one.request));
  }
}

std::vector<ClusterAppendStream::Outgoing> ClusterAppendStream::Plan() {
  std::vector<Outgoing> out;
  if (!error_.ok() || closing_) return out;
  for (const std::string& id : std::exchange(ready_, {})) {
    const auto lane = lanes_.find(id);
    if (lane != lanes_.end()) PlanLane(id, lane->second, out);
  }
  return out;
}

void ClusterAppendStream::PlanLane(const std::string& id, ShardLane& lane,
                                   std::vector<Outgoing>& out) {
  const ShardWrite& first = *lane.writes.front();
  const SlotRoute route = RouteOf(*map_, first.slot, first.info->replication.replicas);
  for (const auto* nodes : {&route.writers, &route.joining, &route.incoming}) {
    for (const uint32_t node : *nodes) PlanNode(id, lane, node, out);
  }
}

void ClusterAppendStream::PlanNode(const std::string& id, ShardLane& lane, uint32_t node,
                                   std::vector<Outgoing>& out) {
  const std::string& node_id = map_->nodes[node].id;
  ShardLane::Node& held = lane.nodes[node_id];
  const absl::Time now = absl::Now();
  if (now < held.hold_until) return;
  const auto stage = [&](const auto& write) { return write->replicas[node_id].stage; };
  const auto first = std::find_if(lane.writes.begin(), lane.writes.end(), [&](const auto& write) {
    return stage(write) == Stage::kWaiting && !IsPast(*write);
  });
  if (first == lane.writes.end()) return;
  // What was sent behind it comes back refused; then everything goes again, in order.
  const bool sent_behind = std::any_of(
      first, lane.writes.end(), [&](const auto& write) { return stage(write) == Stage::kSent; });
  if (sent_behind) return;
  const std::shared_ptr<NodeStream> stream = StreamTo(node);
  if (stream == nullptr) return;
  if (stream->bytes_sent > core_->options.limits.append_bytes_in_flight_max) {
    held.hold_until = now + kRetryPause;
    return;
  }
  for (auto write = first; write != lane.writes.end(); ++write) {
    if (stage(*write) != Stage::kWaiting || IsPast(**write)) continue;
    (*write)->replicas[node_id].stage = Stage::kSent;
    stream->sent.push_back({.write = *write, .lane = id});
    stream->bytes_sent += (*write)->bytes;
    v1::AppendRequest request = (*write)->append.request;
    request.set_epoch(map_->epoch);
    out.push_back({.stream = stream, .request = std::move(request)});
    if (held.lagging) return;  // to see whether it still does
  }
}

std::shared_ptr<ClusterAppendStream::NodeStream> ClusterAppendStream::StreamTo(uint32_t node) {
  const ClusterNode& named = map_->nodes[node];
  Connection& state = nodes_[named.id];
  if (state.stream != nullptr && !state.stream->broken) return state.stream;
  if (absl::Now() < state.open_after) return nullptr;
  state.stream = std::make_shared<NodeStream>();
  state.stream->node_id = named.id;
  state.stream->node = core_->pool.Get(named.address);
  return state.stream;
}

void ClusterAppendStream::OnResponse(NodeStream& stream, const v1::AppendResponse& response) {
  {
    MutexLock lock(mutex_);
    if (stream.sent.empty()) {
      Fail(absl::InternalError("a node acknowledged an append that was not sent"));
      return;
    }
    const Sent sent = std::move(stream.sent.front());
    stream.sent.pop_front();
    stream.bytes_sent -= sent.write->bytes;
    nodes_[stream.node_id].backoff = absl::ZeroDuration();
    if (error_.ok()) TakeAnswer(stream, sent, response);
    Settle();
  }
  Pump(Caller::kLink);
}

void ClusterAppendStream::TakeAnswer(NodeStream& stream, const Sent& sent,
                                     const v1::AppendResponse& response) {
  const absl::Status status = wire::FromWire(response.error());
  ShardWrite::Replica& replica = sent.write->replicas[stream.node_id];
  if (!status.ok()) {
    replica.stage = Stage::kWaiting;
    TakeRefusal(stream.node_id, sent, status);
    return;
  }
  replica.stage = Stage::kHeld;
  replica.ack = {.watermark = response.watermark(),
                 .durable_watermark = response.durable_watermark()};
  const auto lane = lanes_.find(sent.lane);
  if (lane == lanes_.end()) return;
  ShardLane::Node& node = lane->second.nodes[stream.node_id];
  if (node.lagging) ready_.insert(sent.lane);
  node.lagging = false;
  Acknowledge(*map_, lane->second, *sent.write);
}

void ClusterAppendStream::TakeRefusal(const std::string& node_id, const Sent& sent,
                                      const absl::Status& refusal) {
  const auto found = lanes_.find(sent.lane);
  if (found == lanes_.end()) return;
  ShardLane& lane = found->second;
  ShardLane::Node& node = lane.nodes[node_id];
  const absl::Time now = absl::Now();
  core_->ticker.Wake();
  if (IsPassing(refusal)) {
    last_trouble_ = refusal;
    node.hold_until = now + kRetryPause;
    core_->directory.Refresh();
    // A node that is being filled says so of what it does not have yet.
    const int64_t index = map_->FindNode(node_id);
    if (absl::IsUnavailable(refusal) && index >= 0 &&
        map_->nodes[index].state == NodeState::kRepairing) {
      node.lagging = true;
      node.refusal = refusal;
      node.hold_until = now + kLagPause;
      Acknowledge(*map_, lane, *sent.write);
    }
    return;
  }
  if (IsLag(refusal)) {
    if (!lane.IsFirstMissing(*sent.write, node_id)) {
      ready_.insert(sent.lane);  // only because what comes before was refused
      return;
    }
    last_trouble_ = refusal;
    node.lagging = true;
    node.refusal = refusal;
    node.hold_until = now + kLagPause;
    core_->directory.Refresh();
    Acknowledge(*map_, lane, *sent.write);
    const absl::Status hopeless = Hopeless(*map_, lane, *sent.write);
    if (hopeless.ok()) return;
    if (absl::IsNotFound(hopeless)) core_->cache.Drop(sent.write->info->session_id);
    Fail(hopeless);
    return;
  }
  const SlotRoute route = RouteOf(*map_, sent.write->slot, sent.write->info->replication.replicas);
  const auto is_node = [&](uint32_t n) { return map_->nodes[n].id == node_id; };
  const bool counts = std::any_of(route.writers.begin(), route.writers.end(), is_node) ||
                      std::any_of(route.joining.begin(), route.joining.end(), is_node);
  if (counts && !sent.write->acknowledged) {
    Fail(refusal);
    return;
  }
  node.lagging = true;
  node.refusal = refusal;
  node.hold_until = now + kLagPause;
}

void ClusterAppendStream::OnFinished(NodeStream& stream, const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    stream.broken = true;
    for (const Sent& sent : stream.sent) {
      sent.write->replicas[stream.node_id].stage = Stage::kWaiting;
      ready_.insert(sent.lane);
    }
    stream.sent.clear();
    stream.bytes_sent = 0;
    if (closing_) return;
    Connection& node = nodes_[stream.node_id];
    node.backoff = std::clamp(node.backoff * 2, kReopenMin, kReopenMax);
    node.open_after = absl::Now() + node.backoff;
    if (node.stream.get() == &stream) {
      ended_.push_back(std::move(node.stream));
      node.stream = nullptr;
    }
    last_trouble_ = status;
    stream.node->load->Finished(0, absl::ZeroDuration(), NodeLoad::Outcome::kFailed, absl::Now());
  }
  core_->directory.Refresh();
  core_->ticker.Wake();
}

bool ClusterAppendStream::IsPast(const ShardWrite& write) const {
  return write.acknowledged && core_->cache.Generation(write.info->session_id) != write.generation;
}

bool ClusterAppendStream::IsFinished(const WriteBatch& batch, absl::Time now) {
  if (!batch.acknowledged) return false;
  if (now - batch.appended > kKeepAcknowledged || IsPast(*batch.writes.front())) return true;
  return std::none_of(batch.writes.begin(), batch.writes.end(), [&](const auto& write) {
    return IsAwaited(*map_, lanes_[write->append.request.session_id()], *write);
  });
}

void ClusterAppendStream::Settle() {
  const absl::Time now = absl::Now();
  bool changed = false;
  while (acknowledged_ < batches_.size()) {
    WriteBatch& batch = *batches_[acknowledged_];
    const bool all = std::all_of(batch.writes.begin(), batch.writes.end(),
                                 [](const auto& write) { return write->acknowledged; });
    if (!all) break;
    batch.acknowledged = true;
    batch.ack = AckOfBatch(batch);
    const ShardWrite& any = *batch.writes.front();
    core_->cache.NoteAppended(any.info->session_id, any.append.shard.layer, batch.ack.watermark);
    last_ack_ = batch.ack;
    last_progress_ = now;
    ++acknowledged_;
    changed = true;
  }
  while (!batches_.empty() && IsFinished(*batches_.front(), now)) {
    for (const auto& write : batches_.front()->writes) {
      const auto lane = lanes_.find(write->append.request.session_id());
      if (lane == lanes_.end()) continue;
      std::erase(lane->second.writes, write);
      if (lane->second.writes.empty()) lanes_.erase(lane);
    }
    bytes_in_flight_ -= batches_.front()->bytes;
    batches_.pop_front();
    --acknowledged_;
    changed = true;
  }
  if (changed) changed_.NotifyAll();
}

void ClusterAppendStream::Fail(const absl::Status& status) {
  if (error_.ok()) error_ = status;
  changed_.NotifyAll();
}

bool ClusterAppendStream::Tick() {
  bool again = false;
  {
    MutexLock lock(mutex_);
    if (!error_.ok()) return false;
    const std::shared_ptr<const ClusterMap> newest = core_->directory.map();
    if (newest->epoch != map_->epoch) {
      map_ = newest;
      for (auto& [id, lane] : lanes_) {
        for (auto& [node_id, node] : lane.nodes) node.hold_until = absl::InfinitePast();
      }
    }
    for (auto& [id, lane] : lanes_) {
      ready_.insert(id);
      for (const auto& write : lane.writes) Acknowledge(*map_, lane, *write);
    }
    Settle();
    if (acknowledged_ < batches_.size() &&
        absl::Now() - last_progress_ > core_->options.call_timeout) {
      const std::string trouble(last_trouble_.message());
      Fail(absl::UnavailableError(absl::StrCat("appends are not acknowledged: ", trouble)));
    }
    again = error_.ok() && !batches_.empty();
  }
  Pump(Caller::kClient);
  return again;
}

}  // namespace attic
