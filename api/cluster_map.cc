#include "api/cluster_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("cluster map: ", what));
}

absl::Status ValidateRanks(const SlotAssignment& slot, size_t index) {
  std::vector<uint32_t> ranks = slot.incoming_ranks;
  if (ranks.empty()) return absl::OkStatus();
  std::sort(ranks.begin(), ranks.end());
  if (ranks.size() != slot.incoming.size() || ranks.back() > slot.replicas.size() ||
      ranks.back() >= kReplicasMax ||
      std::adjacent_find(ranks.begin(), ranks.end()) != ranks.end()) {
    return Invalid(absl::StrCat("slot ", index, " has ranks that its incoming nodes cannot take"));
  }
  return absl::OkStatus();
}

absl::Status ValidateSlot(const ClusterMap& map, size_t index) {
  const SlotAssignment& slot = map.slots[index];
  if (slot.replicas.size() > kReplicasMax || slot.incoming.size() > kReplicasMax) {
    return Invalid(absl::StrCat("slot ", index, " has more than ", kReplicasMax, " replicas"));
  }
  if (slot.epoch > map.epoch) return Invalid(absl::StrCat("slot ", index, " is of a later epoch"));
  std::vector<uint32_t> nodes = slot.replicas;
  nodes.insert(nodes.end(), slot.incoming.begin(), slot.incoming.end());
  std::sort(nodes.begin(), nodes.end());
  if (std::adjacent_find(nodes.begin(), nodes.end()) != nodes.end()) {
    return Invalid(absl::StrCat("slot ", index, " has a node twice"));
  }
  if (!nodes.empty() && nodes.back() >= map.nodes.size()) {
    return Invalid(
        absl::StrCat("slot ", index, " is on node ", nodes.back(), " of ", map.nodes.size()));
  }
  if (slot.joining && slot.incoming.empty()) {
    return Invalid(absl::StrCat("slot ", index, " is joined by no node"));
  }
  return ValidateRanks(slot, index);
}

}  // namespace

const char* NodeStateName(NodeState state) {
  switch (state) {
    case NodeState::kLive:
      return "live";
    case NodeState::kRepairing:
      return "repairing";
    case NodeState::kDown:
      return "down";
  }
  return "unknown";
}

int64_t ClusterMap::FindNode(const std::string& node_id) const {
  const auto found =
      std::lower_bound(nodes.begin(), nodes.end(), node_id,
                       [](const ClusterNode& node, const std::string& id) { return node.id < id; });
  return found != nodes.end() && found->id == node_id ? found - nodes.begin() : -1;
}

absl::Status ValidateClusterMap(const ClusterMap& map) {
  if (map.nodes.size() > kClusterNodesMax) {
    return Invalid(absl::StrCat(map.nodes.size(), " nodes are more than ", kClusterNodesMax));
  }
  if (map.slots.empty() || map.slots.size() > kClusterSlotsMax) {
    return Invalid(absl::StrCat("slots: not between 1 and ", kClusterSlotsMax));
  }
  if (map.replicas_default < 1 || map.replicas_default > kReplicasMax) {
    return Invalid(absl::StrCat("replicas_default: not between 1 and ", kReplicasMax));
  }
  for (size_t i = 0; i < map.nodes.size(); ++i) {
    const ClusterNode& node = map.nodes[i];
    if (node.id.empty() || node.address.empty()) {
      return Invalid(absl::StrCat("node ", i, " has no id or no address"));
    }
    if (node.joining && node.state != NodeState::kRepairing) {
      return Invalid(absl::StrCat("node ", i, " is joining, but not repairing"));
    }
    if (node.state_epoch > map.epoch) {
      return Invalid(absl::StrCat("node ", i, " is of a later epoch"));
    }
    if (i > 0 && map.nodes[i - 1].id >= node.id) return Invalid("nodes are not in order of id");
  }
  for (size_t i = 0; i < map.slots.size(); ++i) ATTIC_RETURN_IF_ERROR(ValidateSlot(map, i));
  return absl::OkStatus();
}

std::span<const uint32_t> ReplicasOf(const SlotAssignment& slot, uint32_t replicas) {
  return std::span<const uint32_t>(slot.replicas)
      .first(std::min<size_t>(replicas, slot.replicas.size()));
}

uint32_t IncomingRank(const SlotAssignment& slot, size_t index) {
  return index < slot.incoming_ranks.size() ? slot.incoming_ranks[index] : 0;
}

}  // namespace attic
