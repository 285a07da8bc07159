#include "server/cluster/repair/slot_role.h"

#include <algorithm>

namespace attic {
namespace {

const HeldShard* Find(const Inventories& inventories, uint32_t node, const std::string& id) {
  const auto inventory = inventories.find(node);
  if (inventory == inventories.end()) return nullptr;
  const auto shard = inventory->second.find(id);
  return shard == inventory->second.end() ? nullptr : &shard->second;
}

bool AnyLive(const std::vector<SlotRole::Other>& replicas, uint32_t ranks_end) {
  return std::any_of(replicas.begin(), replicas.end(), [&](const auto& other) {
    return other.rank < ranks_end && other.state == NodeState::kLive;
  });
}

// The most that anybody says: replicas agree but for those of an older release.
uint32_t ReplicasOf(const std::string& id, const SlotRole& role,
                    const std::optional<HeldShard>& own, const Inventories& inventories,
                    uint32_t replicas_default) {
  uint32_t replicas = own.has_value() ? own->replicas : 0;
  for (const auto& other : role.replicas) {
    if (const HeldShard* shard = Find(inventories, other.node, id)) {
      replicas = std::max(replicas, shard->replicas);
    }
  }
  return std::clamp(replicas == 0 ? replicas_default : replicas, 1u, kReplicasMax);
}

bool HoldsAsMuch(const HeldShard* shard, const HeldShard& own) {
  if (shard == nullptr || shard->watermark < own.watermark) return false;
  // Memory does not stand for a disk.
  return own.durability == Durability::kMemory || shard->durability == own.durability;
}

// What to do with a shard that the node should not hold.
ShardAction DecideLeftover(const HeldShard& own, const std::vector<SlotRole::Other>& owners,
                           const Inventories& inventories, bool closable) {
  size_t as_much = 0, none = 0;
  for (const auto& owner : owners) {
    if (owner.state != NodeState::kLive || !inventories.contains(owner.node)) {
      return ShardAction::kNone;
    }
    const HeldShard* shard = Find(inventories, owner.node, own.session_id);
    if (shard == nullptr) ++none;
    if (HoldsAsMuch(shard, own)) ++as_much;
  }
  if (as_much == owners.size()) return ShardAction::kDrop;
  return none == owners.size() && closable ? ShardAction::kClose : ShardAction::kNone;
}

}  // namespace

SlotRole RoleIn(const ClusterMap& map, uint32_t slot, uint32_t node) {
  SlotRole role{.live = map.nodes[node].state == NodeState::kLive};
  if (slot >= map.slots.size()) return role;
  const SlotAssignment& assignment = map.slots[slot];
  for (uint32_t rank = 0; rank < assignment.replicas.size(); ++rank) {
    const uint32_t replica = assignment.replicas[rank];
    if (replica == node) {
      role.rank = rank;
    } else {
      role.replicas.push_back({replica, rank, map.nodes[replica].state});
    }
  }
  role.incoming = std::find(assignment.incoming.begin(), assignment.incoming.end(), node) !=
                  assignment.incoming.end();
  return role;
}

ShardDecision Decide(const std::string& session_id, const SlotRole& role,
                     const std::optional<HeldShard>& own, const Inventories& inventories,
                     const Closable& closable, uint32_t replicas_default) {
  const uint32_t replicas = ReplicasOf(session_id, role, own, inventories, replicas_default);
  std::vector<SlotRole::Other> owners = role.replicas;
  std::erase_if(owners, [&](const auto& other) { return other.rank >= replicas; });
  ShardDecision decision;
  if (!role.incoming && role.rank >= replicas) {
    // With fewer replicas than the shard should have, it may yet be needed.
    if (own.has_value() && owners.size() == replicas) {
      decision.action = DecideLeftover(*own, owners, inventories, closable.by_others);
      decision.sources = owners;
    }
    return decision;
  }
  const bool self_live = role.live && !role.incoming;
  const NodeState truth =
      self_live || AnyLive(role.replicas, replicas) ? NodeState::kLive : NodeState::kRepairing;
  for (const auto& owner : owners) {
    if (owner.state != truth) continue;
    decision.all_known = decision.all_known && inventories.contains(owner.node);
    const HeldShard* shard = Find(inventories, owner.node, session_id);
    if (shard == nullptr) continue;
    decision.sources.push_back(owner);
    decision.sources_watermark = std::max(decision.sources_watermark, shard->watermark);
  }
  if (!decision.sources.empty()) {
    decision.action = ShardAction::kFill;
  } else if (own.has_value() && closable.by_replica && decision.all_known &&
             AnyLive(role.replicas, replicas)) {
    decision.action = ShardAction::kClose;
    for (const auto& owner : owners) {
      if (owner.state == NodeState::kLive) decision.sources.push_back(owner);
    }
  }
  return decision;
}

bool Awaits(const SlotRole& role, const Inventories& inventories, bool await_down) {
  const auto known = [&](const auto& other) { return inventories.contains(other.node); };
  // Shards of each number of replicas that the node may have to hold.
  const uint32_t last = static_cast<uint32_t>(role.replicas.size()) + (role.incoming ? 0 : 1);
  const uint32_t first = role.incoming ? 1 : role.rank + 1;
  for (uint32_t replicas = first; replicas <= last; ++replicas) {
    const bool live = AnyLive(role.replicas, replicas) || (role.live && !role.incoming);
    for (const auto& other : role.replicas) {
      if (other.rank >= replicas) continue;
      switch (other.state) {
        case NodeState::kLive:
          if (!known(other)) return true;
          break;
        case NodeState::kRepairing:
          if (!live && !known(other)) return true;
          break;
        case NodeState::kDown:
          if (!live && await_down && !role.incoming) return true;
          break;
      }
    }
  }
  return false;
}

}  // namespace attic
