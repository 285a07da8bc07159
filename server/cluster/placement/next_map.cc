#include "server/cluster/placement/next_map.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "server/cluster/placement/next_nodes.h"
#include "server/cluster/placement/slot_planner.h"

namespace attic {
namespace {

void Renumber(const std::vector<uint32_t>& moved, SlotAssignment& slot) {
  for (uint32_t& node : slot.replicas) node = moved[node];
  for (uint32_t& node : slot.incoming) node = moved[node];
}

bool SameNodes(const SlotAssignment& a, const SlotAssignment& b) {
  return a.replicas == b.replicas && a.incoming == b.incoming &&
         a.incoming_ranks == b.incoming_ranks;
}

bool SameSlot(const SlotAssignment& a, const SlotAssignment& b) {
  return SameNodes(a, b) && a.joining == b.joining;
}

void DropIncoming(SlotAssignment& slot, size_t index) {
  slot.incoming.erase(slot.incoming.begin() + static_cast<std::ptrdiff_t>(index));
  slot.incoming_ranks.erase(slot.incoming_ranks.begin() + static_cast<std::ptrdiff_t>(index));
}

// Whether the report of `slot.incoming[i]` counts. It is of what the map of its epoch says: of an
// older one it is of other replicas, or of a replaced node that was in another state.
bool Filled(const NextNodes& next, uint32_t slot_index, const SlotAssignment& slot, size_t i) {
  const uint32_t node = slot.incoming[i];
  const Member* const member = next.members[node];
  if (!next.plan[node].live || member == nullptr || !member->synced_slots.contains(slot_index)) {
    return false;
  }
  // (That it is live says that the report is of its time.)
  uint64_t epoch = slot.epoch;
  const uint32_t rank = slot.incoming_ranks[i];
  if (rank < slot.replicas.size()) {
    // A node that may come back with what only it has keeps its place.
    const uint32_t replaced = slot.replicas[rank];
    if (!next.plan[replaced].up && !next.plan[replaced].lost) return false;
    epoch = std::max(epoch, next.nodes[replaced].state_epoch);
  }
  return member->synced_epoch >= epoch;
}

// Whether `slot.incoming[i]` has to be filled once more: it was away, or says by the map of now
// that it lacks something.
bool Lacks(const NextNodes& next, uint32_t slot_index, const SlotAssignment& slot, size_t i) {
  const uint32_t node = slot.incoming[i];
  const Member* const member = next.members[node];
  if (!next.plan[node].live || member == nullptr) return true;
  return member->synced_epoch >= slot.epoch && !member->synced_slots.contains(slot_index);
}

// Incoming nodes that went away are dropped, those that are filled join, and once they are so again
// take over: others were written to without them until they knew of the first time.
void TakeOver(const NextNodes& next, uint32_t slot_index, SlotAssignment& slot) {
  if (slot.incoming_ranks.size() != slot.incoming.size()) slot.incoming.clear();
  for (size_t i = slot.incoming.size(); i-- > 0;) {
    const uint32_t node = slot.incoming[i];
    if (!next.plan[node].up || next.plan[node].leaving) DropIncoming(slot, i);
  }
  for (size_t i = 0; i < slot.incoming.size(); ++i) {
    if (slot.joining && Lacks(next, slot_index, slot, i)) slot.joining = false;
    if (!Filled(next, slot_index, slot, i)) return;
  }
  if (slot.incoming.empty()) return;
  if (!slot.joining) {
    slot.joining = true;
    return;
  }
  for (size_t i = 0; i < slot.incoming.size(); ++i) {
    const uint32_t rank = slot.incoming_ranks[i];
    slot.replicas.resize(std::max<size_t>(slot.replicas.size(), rank + 1));
    slot.replicas[rank] = slot.incoming[i];
  }
  slot.incoming.clear();
  slot.incoming_ranks.clear();
  slot.joining = false;
}

// What is being filled to no purpose: from nothing, or for a node that is back.
void DropNeedless(const NextNodes& next, uint32_t replicas_default, SlotAssignment& slot) {
  for (size_t i = slot.incoming.size(); i-- > 0;) {
    const uint32_t rank = slot.incoming_ranks[i];
    const bool back = rank < slot.replicas.size() && next.back[slot.replicas[rank]] != 0 &&
                      !next.plan[slot.replicas[rank]].leaving;
    if (back || !HasSource(next.plan, slot, rank, replicas_default)) DropIncoming(slot, i);
  }
}

// Takes out nodes that have ended and hold nothing.
void ForgetNodes(const NextNodes& next, ClusterMap& map) {
  std::vector<uint8_t> kept(map.nodes.size());
  for (size_t i = 0; i < kept.size(); ++i) kept[i] = next.ended[i] == 0 ? 1 : 0;
  for (const SlotAssignment& slot : map.slots) {
    for (const uint32_t node : slot.replicas) kept[node] = 1;
    for (const uint32_t node : slot.incoming) kept[node] = 1;
  }
  std::vector<uint32_t> moved(map.nodes.size());
  uint32_t count = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    moved[i] = count;
    if (kept[i] == 0) continue;
    if (count != i) map.nodes[count] = std::move(map.nodes[i]);
    ++count;
  }
  if (count == map.nodes.size()) return;
  map.nodes.resize(count);
  for (SlotAssignment& slot : map.slots) Renumber(moved, slot);
}

PlacementOptions WithinBounds(PlacementOptions options) {
  options.slots = std::clamp<uint32_t>(options.slots, 1, kClusterSlotsMax);
  options.replicas_default = std::clamp<uint32_t>(options.replicas_default, 1, kReplicasMax);
  options.replicas = std::clamp(options.replicas, options.replicas_default, kReplicasMax);
  options.incoming_max = std::max<uint32_t>(options.incoming_max, 1);
  options.imbalance_max = std::clamp(options.imbalance_max, 0.0, 1.0);
  return options;
}

// Slots go through everything that changes them; whether one did is seen at the end.
void ChangeSlots(const NextNodes& next, const PlacementOptions& options, bool to_the_slot,
                 ClusterMap& result) {
  const std::vector<SlotAssignment> before = result.slots;
  for (uint32_t i = 0; i < result.slots.size(); ++i) {
    TakeOver(next, i, result.slots[i]);
    DropNeedless(next, options.replicas_default, result.slots[i]);
  }
  const PlanOptions plan{.replicas = options.replicas,
                         .replicas_default = options.replicas_default,
                         .incoming_max = options.incoming_max,
                         .imbalance_max = to_the_slot ? 0 : options.imbalance_max};
  SlotPlanner(next.plan, plan, result.slots).Run();
  for (size_t i = 0; i < before.size(); ++i) {
    SlotAssignment& slot = result.slots[i];
    // Of other nodes than those that had caught up.
    if (!SameNodes(before[i], slot)) slot.joining = false;
    if (!SameSlot(before[i], slot)) slot.epoch = result.epoch;
  }
}

bool NothingIncoming(const ClusterMap& map) {
  return std::all_of(map.slots.begin(), map.slots.end(),
                     [](const SlotAssignment& slot) { return slot.incoming.empty(); });
}

}  // namespace

ClusterMap NextMap(const ClusterMap& map, const ClusterView& view,
                   const PlacementOptions& given_options) {
  const PlacementOptions options = WithinBounds(given_options);
  const bool first = map.epoch == 0;
  ClusterMap result = map;
  result.epoch = map.epoch + 1;
  result.replicas_default = options.replicas_default;
  const NextNodes next = FindNextNodes(map, view, options, result.epoch);
  if (first && next.nodes.empty()) return map;
  if (first) {
    result.slots.assign(options.slots, {});
    result.rebalanced = view.rebalance;
  }
  result.nodes = next.nodes;
  for (SlotAssignment& slot : result.slots) Renumber(next.moved, slot);

  const bool rebalance = view.rebalance != 0 && view.rebalance != result.rebalanced;
  ChangeSlots(next, options, first || rebalance, result);
  if (rebalance && NothingIncoming(result)) result.rebalanced = view.rebalance;
  ForgetNodes(next, result);

  ClusterMap same_epoch = result;
  same_epoch.epoch = map.epoch;
  return same_epoch == map ? map : result;
}

}  // namespace attic
