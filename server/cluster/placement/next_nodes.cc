#include "server/cluster/placement/next_nodes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "server/cluster/placement/rendezvous.h"

namespace attic {
namespace {

ClusterNode NodeOf(const Member& member, uint64_t epoch) {
  return {.id = member.node_id,
          .address = member.address,
          .zone = member.zone,
          .capacity = member.capacity,
          .boot_id = member.boot_id,
          .state = NodeState::kLive,
          .state_epoch = epoch};
}

void SetState(ClusterNode& node, NodeState state, uint64_t epoch) {
  if (node.state == state) return;
  node.state = state;
  node.joining = false;
  node.state_epoch = epoch;
}

void UpdateNode(ClusterNode& node, const Member* member, uint64_t epoch) {
  if (member == nullptr) return SetState(node, NodeState::kDown, epoch);
  node.address = member->address;
  node.zone = member->zone;
  node.capacity = member->capacity;
  if (node.boot_id != member->boot_id) {
    node.boot_id = member->boot_id;
    node.state = NodeState::kRepairing;
    node.joining = false;
    node.state_epoch = epoch;
  } else if (node.state == NodeState::kDown) {
    SetState(node, NodeState::kRepairing, epoch);
  } else if (node.state == NodeState::kRepairing && member->node_synced &&
             member->synced_epoch >= node.state_epoch) {
    // Twice: others were written to without it until they knew of the first time.
    if (node.joining) return SetState(node, NodeState::kLive, epoch);
    node.joining = true;
    node.state_epoch = epoch;
  }
}

// Registered nodes that a map can hold, by id. Those that are in the map already come first where
// there are too many.
std::map<std::string, const Member*> UsableMembers(const ClusterMap& map, const ClusterView& view) {
  std::map<std::string, const Member*> usable;
  size_t free = kClusterNodesMax - std::min<size_t>(kClusterNodesMax, map.nodes.size());
  for (const Member& member : view.members) {
    if (member.node_id.empty() || member.address.empty()) continue;
    if (map.FindNode(member.node_id) < 0) {
      if (free == 0 || view.removed.contains(member.node_id)) continue;
      --free;
    }
    usable.emplace(member.node_id, &member);
  }
  return usable;
}

bool DownForLong(const std::string& id, const ClusterView& view, absl::Duration replace_after) {
  const auto since = view.down_since.find(id);
  return since != view.down_since.end() && view.now - since->second >= replace_after;
}

void NumberZones(NextNodes& next) {
  std::map<std::string, uint32_t> zones;
  for (size_t i = 0; i < next.nodes.size(); ++i) {
    const uint32_t number = static_cast<uint32_t>(zones.size());
    next.plan[i].zone = zones.emplace(next.nodes[i].zone, number).first->second;
  }
}

void AddNode(const ClusterView& view, const PlacementOptions& options, ClusterNode node,
             const Member* member, bool back, NextNodes& next) {
  const bool removed = view.removed.contains(node.id);
  node.draining = removed || view.draining.contains(node.id);
  const bool lost =
      member == nullptr && (removed || DownForLong(node.id, view, options.replace_after));
  next.plan.push_back({.hash = NodeHash(node.id),
                       .capacity = static_cast<double>(std::max<uint64_t>(node.capacity, 1)),
                       .up = node.state != NodeState::kDown,
                       .live = node.state == NodeState::kLive,
                       .leaving = node.draining || lost,
                       .emptied = node.draining,
                       .lost = lost,
                       .gone = removed && member == nullptr});
  next.members.push_back(member);
  next.back.push_back(back ? 1 : 0);
  next.ended.push_back(lost ? 1 : 0);
  next.nodes.push_back(std::move(node));
}

}  // namespace

NextNodes FindNextNodes(const ClusterMap& map, const ClusterView& view,
                        const PlacementOptions& options, uint64_t epoch) {
  const std::map<std::string, const Member*> members = UsableMembers(map, view);
  NextNodes next;
  auto member = members.begin();
  size_t old = 0;
  while (old < map.nodes.size() || member != members.end()) {
    const bool is_new =
        old == map.nodes.size() || (member != members.end() && member->first < map.nodes[old].id);
    if (is_new) {
      AddNode(view, options, NodeOf(*member->second, epoch), member->second, false, next);
      ++member;
      continue;
    }
    ClusterNode node = map.nodes[old];
    const bool registered = member != members.end() && member->first == node.id;
    const Member* const of_node = registered ? member->second : nullptr;
    UpdateNode(node, of_node, epoch);
    const bool back = map.nodes[old].state == NodeState::kDown && registered;
    next.moved.push_back(static_cast<uint32_t>(next.nodes.size()));
    AddNode(view, options, std::move(node), of_node, back, next);
    if (registered) ++member;
    ++old;
  }
  NumberZones(next);
  return next;
}

}  // namespace attic
