#include "server/cluster/placement/slot_planner.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "server/cluster/placement/rendezvous.h"

namespace attic {

bool HasSource(std::span<const PlanNode> nodes, const SlotAssignment& slot, uint32_t rank,
               uint32_t replicas_default) {
  bool any_live = false;
  bool holder_live = false;
  bool holders_gone = true;
  for (uint32_t i = 0; i < slot.replicas.size(); ++i) {
    const PlanNode& node = nodes[slot.replicas[i]];
    any_live = any_live || node.live;
    if (i >= std::max(rank + 1, replicas_default)) continue;
    holder_live = holder_live || node.live;
    holders_gone = holders_gone && node.gone;
  }
  return holder_live || (holders_gone && any_live);
}

std::vector<uint32_t> PlannedReplicas(const SlotAssignment& slot) {
  std::vector<uint32_t> planned = slot.replicas;
  for (size_t i = 0; i < slot.incoming.size(); ++i) {
    const uint32_t rank = slot.incoming_ranks[i];
    if (rank == planned.size()) {
      planned.push_back(slot.incoming[i]);
    } else {
      ATTIC_CHECK(rank < planned.size());
      planned[rank] = slot.incoming[i];
    }
  }
  return planned;
}

SlotPlanner::SlotPlanner(std::span<const PlanNode> nodes, const PlanOptions& options,
                         std::vector<SlotAssignment>& slots)
    : nodes_(nodes), options_(options), slots_(slots) {
  std::vector<ShareNode> share_nodes(nodes.size());
  std::set<uint32_t> zones;
  uint32_t staying = 0;
  for (uint32_t node = 0; node < nodes.size(); ++node) {
    share_nodes[node].zone = nodes[node].zone;
    if (nodes[node].leaving) continue;
    share_nodes[node].capacity = nodes[node].capacity;
    zones.insert(nodes[node].zone);
    ++staying;
    if (!nodes[node].live) continue;
    fillable_.push_back(node);
    fill_zones_.push_back(nodes[node].zone);
  }
  std::sort(fill_zones_.begin(), fill_zones_.end());
  fill_zones_.erase(std::unique(fill_zones_.begin(), fill_zones_.end()), fill_zones_.end());
  zones_ = static_cast<uint32_t>(zones.size());
  replicas_ = std::min(options.replicas, staying);
  balance_.emplace(ComputeShares(share_nodes, slots.size(), replicas_), replicas_,
                   options.imbalance_max);
  empty_.assign(slots.size(), 0);
  for (const SlotAssignment& slot : slots) {
    incoming_ += slot.incoming.size();
    std::vector<uint32_t>& planned = planned_.emplace_back(PlannedReplicas(slot));
    if (slot.incoming.size() == 1 && slot.incoming_ranks[0] < slot.replicas.size() &&
        planned.size() < replicas_ && !nodes[slot.replicas[slot.incoming_ranks[0]]].leaving) {
      planned.push_back(slot.replicas[slot.incoming_ranks[0]]);
    }
    for (uint32_t rank = 0; rank < planned.size(); ++rank) balance_->Add(planned[rank], rank);
  }
}

void SlotPlanner::Run() {
  TrimSlots();
  PlaceEmptySlots();
  MeetNeeds();
  SpreadOverZones();
  MoveForBalance();
}

bool SlotPlanner::Others::HasNode(uint32_t node) const {
  return std::find(nodes.begin(), nodes.begin() + node_count, node) != nodes.begin() + node_count;
}

bool SlotPlanner::Others::HasZone(uint32_t zone) const {
  return std::find(zones.begin(), zones.begin() + zone_count, zone) != zones.begin() + zone_count;
}

SlotPlanner::Others SlotPlanner::OthersOf(uint32_t slot, uint32_t rank) const {
  Others others;
  for (const uint32_t node : slots_[slot].replicas) others.nodes[others.node_count++] = node;
  for (const uint32_t node : slots_[slot].incoming) others.nodes[others.node_count++] = node;
  const std::vector<uint32_t>& planned = planned_[slot];
  for (uint32_t other = 0; other < planned.size(); ++other) {
    // What leaves does not matter: it is replaced next.
    if (other == rank || nodes_[planned[other]].leaving) continue;
    others.zones[others.zone_count++] = nodes_[planned[other]].zone;
  }
  return others;
}

bool SlotPlanner::Source(uint32_t slot, uint32_t rank) const {
  return HasSource(nodes_, slots_[slot], rank, options_.replicas_default);
}

uint32_t SlotPlanner::ZonesWithin(uint32_t slot) const {
  std::array<uint32_t, kReplicasMax> zones;
  uint32_t count = 0;
  for (const uint32_t node : planned_[slot]) {
    const uint32_t zone = nodes_[node].zone;
    if (std::find(zones.begin(), zones.begin() + count, zone) == zones.begin() + count) {
      zones[count++] = zone;
    }
  }
  return count;
}

const std::vector<double>& SlotPlanner::ScoresOf(uint32_t slot) {
  if (scored_slot_ != slot) {
    scores_.resize(fillable_.size());
    for (size_t i = 0; i < fillable_.size(); ++i) {
      const PlanNode& node = nodes_[fillable_[i]];
      scores_[i] = RendezvousScore(node.hash, slot, node.capacity);
    }
    scored_slot_ = slot;
  }
  return scores_;
}

// Another zone is worth more than balance, and balance more than the preference of the slot. Where
// no node has room, the one that is worst off least takes it.
uint32_t SlotPlanner::Choose(uint32_t slot, uint32_t rank) {
  const Others others = OthersOf(slot, rank);
  const std::vector<double>& scores = ScoresOf(slot);
  uint32_t best = kNone;
  std::tuple<bool, bool, double> best_worth;
  for (size_t i = 0; i < fillable_.size(); ++i) {
    const uint32_t node = fillable_[i];
    if (others.HasNode(node)) continue;
    const bool new_zone = !others.HasZone(nodes_[node].zone);
    const bool room = balance_->HasRoom(node, rank);
    if (best != kNone &&
        std::pair(new_zone, room) < std::pair(std::get<0>(best_worth), std::get<1>(best_worth))) {
      continue;
    }
    const std::tuple worth(new_zone, room, room ? scores[i] : -balance_->CostOfAdding(node, rank));
    if (best == kNone || worth > best_worth) {
      best = node;
      best_worth = worth;
    }
  }
  return best;
}

void SlotPlanner::Start(uint32_t slot, uint32_t rank, uint32_t node) {
  std::vector<uint32_t>& planned = planned_[slot];
  if (rank < planned.size()) {
    balance_->Remove(planned[rank], rank);
    planned[rank] = node;
  } else {
    ATTIC_CHECK(rank == planned.size());
    planned.push_back(node);
  }
  balance_->Add(node, rank);
  if (empty_[slot] != 0) {
    slots_[slot].replicas = planned;
    return;
  }
  slots_[slot].incoming.push_back(node);
  slots_[slot].incoming_ranks.push_back(rank);
  ++incoming_;
}

void SlotPlanner::DropLast(uint32_t slot) {
  ATTIC_CHECK(slots_[slot].incoming.empty());
  const uint32_t rank = static_cast<uint32_t>(planned_[slot].size()) - 1;
  balance_->Remove(planned_[slot][rank], rank);
  planned_[slot].pop_back();
  slots_[slot].replicas.pop_back();
}

// Fewer replicas are wanted than there are.
void SlotPlanner::TrimSlots() {
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    while (slots_[slot].incoming.empty() && slots_[slot].replicas.size() > options_.replicas &&
           Source(slot, options_.replicas - 1)) {
      DropLast(slot);
    }
  }
}

void SlotPlanner::PlaceEmptySlots() {
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    SlotAssignment& assignment = slots_[slot];
    if (!assignment.incoming.empty() || fillable_.empty() ||
        !std::all_of(assignment.replicas.begin(), assignment.replicas.end(),
                     [this](uint32_t node) { return nodes_[node].gone; })) {
      continue;
    }
    while (!planned_[slot].empty()) DropLast(slot);
    empty_[slot] = 1;
    for (uint32_t rank = 0; rank < replicas_; ++rank) {
      const uint32_t node = Choose(slot, rank);
      if (node == kNone) break;
      Start(slot, rank, node);
    }
  }
}

void SlotPlanner::MeetNeeds() {
  std::vector<Need> needs;
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    const std::vector<uint32_t>& replicas = slots_[slot].replicas;
    if (!slots_[slot].incoming.empty()) continue;
    uint32_t live = 0;
    uint32_t lost = replicas.size() < replicas_ ? 1 : 0;
    uint32_t emptied = 0;
    for (const uint32_t node : replicas) {
      live += nodes_[node].live ? 1 : 0;
      lost += nodes_[node].leaving && !nodes_[node].up ? 1 : 0;
      emptied += nodes_[node].leaving ? 1 : 0;
    }
    // First those that the next failure would end.
    if (lost > 0) {
      needs.push_back({.urgency = live, .slot = slot});
    } else if (emptied > 0) {
      needs.push_back({.urgency = kReplicasMax + 1, .slot = slot});
    }
  }
  std::stable_sort(needs.begin(), needs.end(),
                   [](const Need& a, const Need& b) { return a.urgency < b.urgency; });
  for (const Need& need : needs) {
    if (incoming_ >= options_.incoming_max) return;
    MeetNeedsOf(need.slot);
  }
}

void SlotPlanner::MeetNeedsOf(uint32_t slot) {
  const uint32_t size = static_cast<uint32_t>(slots_[slot].replicas.size());
  for (const bool up : {false, true}) {
    for (uint32_t rank = 0; rank < size; ++rank) {
      const PlanNode& node = nodes_[slots_[slot].replicas[rank]];
      if (node.leaving && node.up == up && Source(slot, rank) && EmptyRank(slot, rank)) return;
    }
    if (up || size >= replicas_ || !Source(slot, size)) continue;
    const uint32_t node = Choose(slot, size);
    if (node != kNone) return Start(slot, size, node);
  }
}

// Finds a node for a rank whose node leaves. Where there are fewer nodes than ranks, the last rank
// is given up, and its node takes the place.
bool SlotPlanner::EmptyRank(uint32_t slot, uint32_t rank) {
  const uint32_t chosen = Choose(slot, rank);
  if (chosen != kNone) {
    Start(slot, rank, chosen);
    return true;
  }
  SlotAssignment& assignment = slots_[slot];
  const uint32_t last = static_cast<uint32_t>(assignment.replicas.size()) - 1;
  if (!nodes_[assignment.replicas[rank]].emptied || last < replicas_ || last == 0) return false;
  SlotAssignment shorter = assignment;
  shorter.replicas.pop_back();
  const uint32_t last_node = assignment.replicas[last];
  if (rank == last || nodes_[last_node].leaving) {
    if (!HasSource(nodes_, shorter, last - 1, options_.replicas_default)) return false;
    DropLast(slot);
    return true;
  }
  if (!nodes_[last_node].live || !HasSource(nodes_, shorter, rank, options_.replicas_default)) {
    return false;
  }
  DropLast(slot);
  Start(slot, rank, last_node);
  return true;
}

void SlotPlanner::SpreadOverZones() {
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (incoming_ >= options_.incoming_max) return;
    if (!slots_[slot].incoming.empty() || empty_[slot] != 0) continue;
    const size_t wanted = std::min<size_t>(planned_[slot].size(), zones_);
    if (ZonesWithin(slot) >= wanted) continue;
    const Move move = BestMoveToOtherZone(slot);
    if (move.node != kNone) Start(slot, move.rank, move.node);
  }
}

SlotPlanner::Move SlotPlanner::BestMoveToOtherZone(uint32_t slot) {
  Move best;
  for (uint32_t rank = 0; rank < planned_[slot].size(); ++rank) {
    const PlanNode& node = nodes_[planned_[slot][rank]];
    const Others others = OthersOf(slot, rank);
    const bool new_zone = std::any_of(fill_zones_.begin(), fill_zones_.end(), [&](uint32_t zone) {
      return zone != node.zone && !others.HasZone(zone);
    });
    if (!node.up || node.leaving || !others.HasZone(node.zone) || !new_zone ||
        !Source(slot, rank)) {
      continue;
    }
    const uint32_t chosen = Choose(slot, rank);
    if (chosen == kNone || others.HasZone(nodes_[chosen].zone)) continue;
    const double gain =
        balance_->GainOfRemoving(planned_[slot][rank], rank) - balance_->CostOfAdding(chosen, rank);
    if (best.node == kNone || gain > best.gain) {
      best = {.slot = slot, .rank = rank, .node = chosen, .gain = gain};
    }
  }
  return best;
}

}  // namespace attic
