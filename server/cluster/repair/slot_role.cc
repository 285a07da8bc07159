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

// The replicas of a shard of others are all live and hold `own`.
bool HeldByAll(const HeldShard& own, const std::vector<SlotRole::Other>& owners,
               const Inventories& inventories) {
  for (const auto& owner : owners) {
    const HeldShard* shard = Find(inventories, owner.node, own.session_id);
    if (owner.state != NodeState::kLive || shard == nullptr) return false;
    if (shard->watermark < own.watermark) return false;
    // Memory does not stand for a disk.
    if (own.durability == Durability::kDurable && shard->durability != own.durability) return false;
  }
  return !owners.empty();
}

}  // namespace

SlotRole RoleIn(const ClusterMap& map, uint32_t slot, uint32_t node) {
  SlotRole role;
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
                     const std::optional<HeldShard>& own, const Inventories& inventories, bool away,
                     uint32_t replicas_default) {
  const uint32_t replicas = ReplicasOf(session_id, role, own, inventories, replicas_default);
  std::vector<SlotRole::Other> owners = role.replicas;
  std::erase_if(owners, [&](const auto& other) { return other.rank >= replicas; });
  ShardDecision decision;
  if (!role.incoming && role.rank >= replicas) {
    // Fewer replicas than the shard should have: it may yet be needed.
    const bool complete = owners.size() == replicas;
    if (own.has_value() && complete && HeldByAll(*own, owners, inventories)) {
      decision.action = ShardAction::kDrop;
      decision.sources = owners;
    }
    return decision;
  }
  const NodeState truth =
      AnyLive(role.replicas, replicas) ? NodeState::kLive : NodeState::kRepairing;
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
  } else if (own.has_value() && away && truth == NodeState::kLive && decision.all_known) {
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
    const bool live = AnyLive(role.replicas, replicas);
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
