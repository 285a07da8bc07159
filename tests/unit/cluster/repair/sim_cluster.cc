#include "tests/unit/cluster/repair/sim_cluster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace attic {
namespace {

std::string Named(char kind, uint64_t number) {
  std::string name(1, kind);
  return name.append(std::to_string(number));
}
std::string NodeName(size_t node) { return Named('n', node); }

}  // namespace

SimCluster::SimCluster(const SimOptions& options) : options_(options), random_(options.seed) {
  map_ = {.cluster = "sim", .epoch = 1, .replicas_default = 2};
  nodes_.resize(options.nodes);
  for (uint32_t i = 0; i < options.nodes; ++i) {
    map_.nodes.push_back({.id = NodeName(i), .address = "x:1"});
    nodes_[i].node = std::make_unique<FakeNode>();
    Start(i);
  }
  for (uint32_t slot = 0; slot < options.slots; ++slot) {
    std::vector<uint32_t> order(options.nodes);
    for (uint32_t i = 0; i < options.nodes; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_);
    order.resize(std::min<size_t>(order.size(), kReplicasMax));
    map_.slots.push_back({.replicas = order, .epoch = 1});
  }
}

void SimCluster::Start(uint32_t i) {
  Node& node = nodes_[i];
  node.pass.reset();
  const auto now = [this] { return clock_.Now(); };
  node.changes = std::make_unique<ShardChanges>(absl::Seconds(1), now);
  RepairOptions options;
  options.boot_id = Named('b', ++boots_);
  options.bytes_per_second = 0;
  options.parallel_pulls = 1;
  options.shards_per_pass = 5;
  options.shard.block_tokens = kFakeBlockTokens;
  options.clock = now;
  options.wait_until = [this](absl::Time time) {
    clock_.AdvanceTo(time);
    return true;
  };
  map_.nodes[i].boot_id = options.boot_id;
  node.pass = std::make_unique<RepairPass>(
      NodeName(i), *node.node, *node.changes,
      [this](const ClusterNode& described) { return MakePeer(described); }, options);
  node.gaps.clear();
}

std::shared_ptr<ShardPeer> SimCluster::MakePeer(const ClusterNode& described) {
  const uint32_t i = static_cast<uint32_t>(map_.FindNode(described.id));
  auto peer = std::make_shared<FakePeer>(*nodes_[i].node, clock_);
  peer->fault = [this, i] {
    return map_.nodes[i].state == NodeState::kDown ? Fault::kUnavailable : RandomFault();
  };
  peer->on_call = [this](const std::string&) {
    if (Chance(options_.busy)) RandomCall();
  };
  return peer;
}

std::string SimCluster::NextId() { return Named('s', next_id_++); }

bool SimCluster::Chance(double probability) {
  return std::uniform_real_distribution<>()(random_) < probability;
}

// A write fails without anybody's knowing, as it may at nodes that it is acknowledged without.
bool SimCluster::Misses(const SimSession& session, uint32_t node) {
  if (IsLiveOwner(session, node) || Joins(session, node)) return false;
  return Chance(options_.missed_append);
}

bool SimCluster::Joins(const SimSession& session, uint32_t node) const {
  const SlotAssignment& slot = map_.slots[session.slot];
  const auto& incoming = slot.incoming;
  return map_.nodes[node].joining ||
         (slot.joining && std::find(incoming.begin(), incoming.end(), node) != incoming.end());
}

size_t SimCluster::Below(size_t count) {
  return std::uniform_int_distribution<size_t>(0, count - 1)(random_);
}

Fault SimCluster::RandomFault() {
  if (!Chance(options_.fault)) return Fault::kNone;
  return static_cast<Fault>(1 + Below(static_cast<size_t>(Fault::kHang)));
}

std::vector<uint32_t> SimCluster::Writers(const SimSession& session) const {
  std::vector<uint32_t> nodes;
  const SlotAssignment& slot = map_.slots[session.slot];
  for (const uint32_t node : ReplicasOf(slot, session.replicas)) nodes.push_back(node);
  nodes.insert(nodes.end(), slot.incoming.begin(), slot.incoming.end());
  std::erase_if(nodes, [&](uint32_t node) { return map_.nodes[node].state == NodeState::kDown; });
  return nodes;
}

std::vector<uint32_t> SimCluster::LiveOwners(const SimSession& session) const {
  std::vector<uint32_t> nodes;
  for (const uint32_t node : ReplicasOf(map_.slots[session.slot], session.replicas)) {
    if (map_.nodes[node].state == NodeState::kLive) nodes.push_back(node);
  }
  return nodes;
}

bool SimCluster::IsLiveOwner(const SimSession& session, uint32_t node) const {
  const auto live = LiveOwners(session);
  return std::find(live.begin(), live.end(), node) != live.end();
}

bool SimCluster::Holds(uint32_t node, const std::string& id, const SimSession& session) {
  const auto shard = nodes_[node].node->Find(id);
  return shard != nullptr && shard->rows == session.rows;
}

bool SimCluster::Ready(const std::string& id) {
  const SimSession& session = sessions_.at(id);
  const auto live = LiveOwners(session);
  if (live.empty()) return false;
  for (const uint32_t node : live) {
    if (Holds(node, id, session)) continue;
    ADD_FAILURE() << id << " lags on live " << node;
    Dump(id, session);
    return false;
  }
  // What is called now waits for them.
  const auto writers = Writers(session);
  return std::all_of(writers.begin(), writers.end(), [&](uint32_t node) {
    return !Joins(session, node) || Holds(node, id, session);
  });
}

void SimCluster::Open(uint32_t slot, uint32_t replicas) {
  SimSession session{.slot = slot,
                     .replicas = replicas,
                     .durability = Chance(0.5) ? Durability::kDurable : Durability::kMemory};
  if (LiveOwners(session).empty()) return;
  const std::string id = NextId();
  for (const uint32_t node : Writers(session)) {
    if (Misses(session, node)) continue;
    EXPECT_TRUE(nodes_[node].node->Open(
        {.session_id = id, .slot = slot, .replicas = replicas, .durability = session.durability}));
  }
  sessions_.emplace(id, session);
}

void SimCluster::Append(const std::string& id, size_t count) {
  SimSession& session = sessions_.at(id);
  FakeRows rows(count);
  for (uint64_t& row : rows) row = random_();
  const int64_t begin = static_cast<int64_t>(session.rows.size());
  for (const uint32_t node : Writers(session)) {
    const bool live = IsLiveOwner(session, node);
    if (Misses(session, node)) continue;
    const absl::Status status = nodes_[node].node->AppendRows(id, begin, rows);
    const bool counts = live || Joins(session, node);
    EXPECT_TRUE(status.ok() || !counts) << status << " " << id << " on " << node;
    if (!status.ok()) nodes_[node].gaps.insert(id);
  }
  session.rows.insert(session.rows.end(), rows.begin(), rows.end());
}

void SimCluster::Truncate(const std::string& id, int64_t position) {
  SimSession& session = sessions_.at(id);
  for (const uint32_t node : Writers(session)) {
    ShardChanges::Change change(*nodes_[node].changes, {id});
    nodes_[node].node->Truncate(id, position).IgnoreError();
  }
  session.rows.resize(static_cast<size_t>(position));
}

void SimCluster::Close(const std::string& id) {
  for (const uint32_t node : Writers(sessions_.at(id))) {
    ShardChanges::Change change(*nodes_[node].changes, {id});
    nodes_[node].node->Close(id).IgnoreError();
  }
  closed_.insert(sessions_.extract(id));
  ++closes_;
}

void SimCluster::Fork(const std::string& id, int64_t position) {
  const SimSession source = sessions_.at(id);
  SimSession fork = source;
  fork.rows.resize(static_cast<size_t>(position));
  const std::string new_id = NextId();
  for (const uint32_t node : Writers(source)) {
    const auto held = nodes_[node].node->Find(id);
    if (held == nullptr || held->rows.size() < fork.rows.size()) continue;
    HeldShard described = held->described;
    described.session_id = new_id;
    EXPECT_TRUE(nodes_[node].node->Open(described));
    EXPECT_TRUE(
        nodes_[node]
            .node->AppendRows(new_id, 0, {held->rows.begin(), held->rows.begin() + position})
            .ok());
  }
  sessions_.emplace(new_id, fork);
}

void SimCluster::RandomCall() {
  if (in_call_) return;
  in_call_ = true;
  const size_t kind = Below(20);
  if (sessions_.size() < 4 || (kind == 0 && sessions_.size() < 40)) {
    const uint32_t slot = static_cast<uint32_t>(Below(map_.slots.size()));
    Open(slot, Chance(options_.single) ? 1 : 2 + static_cast<uint32_t>(Below(2)));
  } else {
    const auto chosen =
        std::next(sessions_.begin(), static_cast<ptrdiff_t>(Below(sessions_.size())));
    const std::string id = chosen->first;
    if (Ready(id)) {
      const size_t held = sessions_.at(id).rows.size();
      if (kind == 1) {
        Close(id);
      } else if (kind == 2 && sessions_.size() < 40) {
        Fork(id, static_cast<int64_t>(Below(held + 1)));
      } else if (kind <= 4) {
        Truncate(id, static_cast<int64_t>(Below(held + 1)));
      } else {
        Append(id, 1 + Below(12));
      }
    }
  }
  in_call_ = false;
}

void SimCluster::Changed() {
  ++map_.epoch;
  for (const auto& [id, session] : closed_) {
    if (LiveOwners(session).empty()) forgotten_.insert(id);
  }
  ASSERT_TRUE(ValidateClusterMap(map_).ok()) << ValidateClusterMap(map_);
}

bool SimCluster::TakeDown(uint32_t node) {
  for (const auto& [id, session] : sessions_) {
    if (LiveOwners(session) == std::vector<uint32_t>{node}) return false;
  }
  map_.nodes[node].state = NodeState::kDown;
  map_.nodes[node].joining = false;
  for (SlotAssignment& slot : map_.slots) {
    if (std::erase(slot.incoming, node) > 0) slot.joining = false;
  }
  Changed();
  return true;
}

void SimCluster::BringBack(uint32_t i, Return how) {
  FakeNode& node = *nodes_[i].node;
  if (how == Return::kSame) Pass(i);  // finds that it is down
  if (how == Return::kEmpty) node.Lose();
  if (how != Return::kSame) {
    for (const auto& [id, shard] : node.All()) {
      if (shard.described.durability == Durability::kMemory) node.Close(id).IgnoreError();
    }
    Start(i);
  }
  map_.nodes[i].state = NodeState::kRepairing;
  ++returns_;
  Changed();
}

void SimCluster::Move(uint32_t slot, uint32_t node) {
  SlotAssignment& assignment = map_.slots[slot];
  const auto& held = assignment.replicas;
  if (!assignment.incoming.empty() || map_.nodes[node].state != NodeState::kLive) return;
  if (std::find(held.begin(), held.end(), node) != held.end()) return;
  assignment.incoming = {node};
  assignment.epoch = map_.epoch + 1;
  Changed();
}

void SimCluster::RandomEvent() {
  const uint32_t node = static_cast<uint32_t>(Below(nodes_.size()));
  if (map_.nodes[node].state == NodeState::kDown) {
    BringBack(node, static_cast<Return>(Below(3)));
  } else if (Chance(0.3)) {
    TakeDown(node);
  } else {
    Move(static_cast<uint32_t>(Below(map_.slots.size())), node);
  }
}

void SimCluster::RestartAll() {
  for (ClusterNode& node : map_.nodes) {
    node.state = NodeState::kDown;
    node.joining = false;
  }
  for (SlotAssignment& slot : map_.slots) {
    slot.incoming.clear();
    slot.joining = false;
  }
}

// A node, or the one that is to be filled for a slot, first joins, and is one of those that hold
// all once it says so again.
void SimCluster::Act(uint32_t node, const SyncReport& report) {
  if (report.epoch != map_.epoch) return;
  bool changed = false;
  ClusterNode& described = map_.nodes[node];
  if (report.node_synced && described.state == NodeState::kRepairing) {
    if (described.joining) described.state = NodeState::kLive;
    described.joining = !described.joining;
    changed = true;
  }
  for (uint32_t i = 0; i < map_.slots.size(); ++i) {
    SlotAssignment& slot = map_.slots[i];
    if (slot.incoming != std::vector<uint32_t>{node}) continue;
    const bool filled =
        std::find(report.slots.begin(), report.slots.end(), i) != report.slots.end();
    if (!filled && !slot.joining) continue;
    if (filled && slot.joining) {
      slot.incoming.clear();
      slot.replicas[Below(slot.replicas.size())] = node;
      ++moves_;
    }
    slot.joining = filled && !slot.joining;
    slot.epoch = map_.epoch + 1;
    changed = true;
  }
  if (changed) Changed();
}

void SimCluster::Pass(uint32_t i, std::set<std::string> gaps) {
  gaps.merge(std::exchange(nodes_[i].gaps, {}));
  const PassResult result =
      nodes_[i].pass->Run({.map = std::make_shared<const ClusterMap>(map_), .gaps = gaps});
  if (result.report.has_value()) Act(i, *result.report);
}

void SimCluster::Settle() {
  options_.fault = options_.missed_append = options_.busy = 0;
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    if (map_.nodes[i].state == NodeState::kDown) BringBack(i, Return::kRestarted);
  }
  const auto done = [&] {
    for (const auto& node : map_.nodes) {
      if (node.state != NodeState::kLive) return false;
    }
    return std::all_of(map_.slots.begin(), map_.slots.end(),
                       [](const auto& slot) { return slot.incoming.empty(); });
  };
  for (int i = 0; i < 500 && !done(); ++i) {
    clock_.Advance(absl::Seconds(1));
    for (uint32_t node = 0; node < nodes_.size(); ++node) Pass(node);
  }
  EXPECT_TRUE(done()) << nodes_[0].pass->progress().last_error;
  // Looks without any reason; they find what lags because nothing came after.
  for (int i = 0; i < 12; ++i) {
    clock_.Advance(absl::Minutes(1));
    for (uint32_t node = 0; node < nodes_.size(); ++node) Pass(node);
  }
}

void SimCluster::CheckLiveReplicas() {
  for (const auto& [id, session] : sessions_) {
    const auto live = LiveOwners(session);
    const bool held = !live.empty() && std::all_of(live.begin(), live.end(), [&](uint32_t node) {
      return Holds(node, id, session);
    });
    EXPECT_TRUE(held) << id << " in slot " << session.slot << ", epoch " << map_.epoch;
    if (!held) Dump(id, session);
  }
}

void SimCluster::Dump(const std::string& id, const SimSession& session) {
  std::string text = id + " of " + std::to_string(session.replicas) + " replicas, " +
                     std::to_string(session.rows.size()) + " rows; replicas";
  for (const uint32_t node : map_.slots[session.slot].replicas) text += " " + NodeName(node);
  for (const uint32_t node : map_.slots[session.slot].incoming) text += " +" + NodeName(node);
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    const auto shard = nodes_[node].node->Find(id);
    text += "\n" + NodeName(node) + " " + NodeStateName(map_.nodes[node].state) + ": " +
            (shard == nullptr ? "nothing" : std::to_string(shard->rows.size())) +
            (Holds(node, id, session) ? " all" : "") + "; " + progress(node).last_error;
  }
  ADD_FAILURE() << text;
}

void SimCluster::CheckExact() {
  for (const auto& [id, session] : sessions_) {
    for (uint32_t node = 0; node < nodes_.size(); ++node) {
      if (IsLiveOwner(session, node)) {
        EXPECT_TRUE(Holds(node, id, session)) << id << " on " << node;
        if (!Holds(node, id, session)) Dump(id, session);
      } else {
        // What differs from that of the owners, as it left the slot while it was away, is kept.
        const auto left = nodes_[node].node->Find(id);
        if (left == nullptr || left->rows.size() > session.rows.size()) continue;
        const bool same = std::equal(left->rows.begin(), left->rows.end(), session.rows.begin());
        EXPECT_FALSE(same) << id << " left on " << node;
        if (same) Dump(id, session);
      }
    }
  }
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    for (const auto& [id, shard] : nodes_[node].node->All()) {
      const bool open = sessions_.contains(id) || forgotten_.contains(id);
      const SlotRole role = RoleIn(map_, shard.described.slot, node);
      // What was closed before its former holder saw it at the new ones stays there.
      const bool leftover = role.rank >= shard.described.replicas;
      EXPECT_TRUE(open || leftover) << id << " was closed, and is on " << node;
    }
  }
}

}  // namespace attic
