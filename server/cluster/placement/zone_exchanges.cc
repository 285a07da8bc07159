// The part of SlotPlanner that mends what single moves cannot: where each slot has a replica in
// every zone, a node can take the place of nodes of its zone only, and how often a zone has the
// first replica never changes. So two zones of a slot exchange ranks: a node of each is filled for
// the other's rank, and both take over together. A slot that holds nothing just changes its order.
//
// Where a zone has no second node for that, or the slot has all nodes there are, the node with the
// last rank gives it up and is filled for another one; who had that gets the last one afterwards.
// Until then sessions of all replicas have one less, so this is done only where the last rank is
// not one of the default number, and while all replicas are live.
#include <algorithm>

#include "server/cluster/placement/slot_planner.h"

namespace attic {
namespace {

constexpr double kGainMin = 1e-6;
// How many slots are looked at for one exchange.
constexpr size_t kSlotsMax = 512;

}  // namespace

SlotPlanner::ZoneCosts SlotPlanner::CostsByZone() const {
  ZoneCosts costs;
  for (uint32_t rank = 0; rank < replicas_; ++rank) {
    costs[rank].resize(nodes_.size());
    for (const uint32_t node : fillable_) {
      costs[rank][nodes_[node].zone].emplace_back(balance_->CostOfAdding(node, rank), node);
    }
    for (auto& of_zone : costs[rank]) std::sort(of_zone.begin(), of_zone.end());
  }
  return costs;
}

void SlotPlanner::Consider(const ZoneCosts& costs, uint32_t slot, uint32_t low, uint32_t high,
                           Exchange& best) const {
  const uint32_t from_low = planned_[slot][low];
  const uint32_t from_high = planned_[slot][high];
  if (nodes_[from_low].zone == nodes_[from_high].zone) return;
  if (empty_[slot] != 0) {
    const double gain = balance_->GainOfLowering(from_low, low, high) -
                        balance_->CostOfRaising(from_high, high, low);
    if (gain > std::max(best.gain, kGainMin)) best = {slot, low, high, from_high, from_low, gain};
    return;
  }
  const PlanNode& leaves_high = nodes_[from_high];
  if (!leaves_high.up || leaves_high.leaving || !MayFill(slot, 2) || !Source(slot, high)) return;
  const Others others = OthersOf(slot, low);
  const auto cheapest = [&](uint32_t rank, uint32_t zone, double& cost) {
    for (const auto& [of_node, node] : costs[rank][zone]) {
      if (others.HasNode(node)) continue;
      cost = of_node;
      return node;
    }
    return kNone;
  };
  double cost_low = 0;
  double cost_high = 0;
  const uint32_t to_low = cheapest(low, leaves_high.zone, cost_low);
  const uint32_t to_high = cheapest(high, nodes_[from_low].zone, cost_high);
  if (to_low == kNone || to_high == kNone) return;
  const double gain = balance_->GainOfRemoving(from_low, low) +
                      balance_->GainOfRemoving(from_high, high) - cost_low - cost_high;
  if (gain > std::max(best.gain, kGainMin)) best = {slot, low, high, to_low, to_high, gain};
}

// Of slots in which one of `nodes` has rank `low`, those of whom would gain most by leaving it
// first.
void SlotPlanner::ConsiderSlotsOf(const ZoneCosts& costs, const std::vector<uint32_t>& nodes,
                                  uint32_t low, uint32_t to_zone, Exchange& best) const {
  std::vector<std::pair<double, uint32_t>> gains;  // negative, so that the largest comes first
  for (const uint32_t node : nodes) {
    if (!held_[low][node].empty()) {
      gains.emplace_back(-balance_->GainOfRemoving(node, low), node);
    }
  }
  std::sort(gains.begin(), gains.end());
  size_t looked_at = 0;
  for (const auto& [negative_gain, node] : gains) {
    for (const uint32_t slot : held_[low][node]) {
      if (++looked_at > kSlotsMax) return;
      for (uint32_t high = low + 1; high < planned_[slot].size(); ++high) {
        if (to_zone == kNone || nodes_[planned_[slot][high]].zone == to_zone) {
          Consider(costs, slot, low, high, best);
        }
      }
    }
  }
}

// The node's zone has too much: what helps a neighbour helps the node at its next move.
SlotPlanner::Exchange SlotPlanner::BestExchangeFrom(uint32_t node) const {
  Exchange best;
  const ZoneCosts costs = CostsByZone();
  std::vector<uint32_t> neighbours;
  for (uint32_t other = 0; other < nodes_.size(); ++other) {
    if (nodes_[other].zone == nodes_[node].zone) neighbours.push_back(other);
  }
  for (uint32_t low = 0; low + 1 < replicas_; ++low) {
    ConsiderSlotsOf(costs, neighbours, low, kNone, best);
  }
  return best;
}

// The node's zone has too little.
SlotPlanner::Exchange SlotPlanner::BestExchangeTo(uint32_t node) const {
  Exchange best;
  const ZoneCosts costs = CostsByZone();
  std::vector<uint32_t> others;
  for (uint32_t other = 0; other < nodes_.size(); ++other) {
    if (nodes_[other].zone != nodes_[node].zone) others.push_back(other);
  }
  for (uint32_t low = 0; low + 1 < replicas_; ++low) {
    for (uint32_t high = low + 1; high < replicas_; ++high) {
      for (const uint32_t slot : held_[high][node]) {
        if (empty_[slot] != 0) Consider(costs, slot, low, high, best);
      }
    }
    ConsiderSlotsOf(costs, others, low, nodes_[node].zone, best);
  }
  return best;
}

void SlotPlanner::MakeExchange(const Exchange& exchange) {
  const uint32_t slot = exchange.slot;
  std::vector<uint32_t>& planned = planned_[slot];
  for (uint32_t rank = 0; rank < planned.size(); ++rank) {
    if (empty_[slot] != 0 && rank != exchange.low && rank != exchange.high) continue;
    std::erase(held_[rank][planned[rank]], slot);
  }
  if (empty_[slot] == 0) {
    Start(slot, exchange.low, exchange.to_low);
    Start(slot, exchange.high, exchange.to_high);
    return;
  }
  balance_->Remove(planned[exchange.low], exchange.low);
  balance_->Remove(planned[exchange.high], exchange.high);
  std::swap(planned[exchange.low], planned[exchange.high]);
  for (const uint32_t rank : {exchange.low, exchange.high}) {
    balance_->Add(planned[rank], rank);
    held_[rank][planned[rank]].push_back(slot);
  }
  slots_[slot].replicas = planned;
}

void SlotPlanner::ConsiderRotation(uint32_t slot, uint32_t rank, Exchange& best) const {
  const uint32_t last = replicas_ - 1;
  const std::vector<uint32_t>& planned = planned_[slot];
  if (planned.size() != replicas_ || empty_[slot] != 0) return;
  const uint32_t rises = planned[last];
  const uint32_t falls = planned[rank];
  const bool all_live = std::all_of(planned.begin(), planned.end(), [&](uint32_t node) {
    return nodes_[node].live && !nodes_[node].leaving;
  });
  if (!all_live) return;
  const double gain =
      balance_->GainOfLowering(falls, rank, last) - balance_->CostOfRaising(rises, last, rank);
  if (gain > std::max(best.gain, kGainMin)) best = {slot, rank, last, rises, falls, gain};
}

SlotPlanner::Exchange SlotPlanner::BestRotation(uint32_t node) const {
  Exchange best;
  if (replicas_ <= options_.replicas_default) return best;
  const uint32_t last = replicas_ - 1;
  for (uint32_t rank = 0; rank < last; ++rank) {
    for (const uint32_t slot : held_[rank][node]) ConsiderRotation(slot, rank, best);
    for (const uint32_t slot : held_[last][node]) ConsiderRotation(slot, rank, best);
  }
  return best;
}

void SlotPlanner::MakeRotation(const Exchange& rotation) {
  std::vector<uint32_t>& planned = planned_[rotation.slot];
  for (uint32_t rank = 0; rank < planned.size(); ++rank) {
    std::erase(held_[rank][planned[rank]], rotation.slot);
  }
  DropLast(rotation.slot);
  Start(rotation.slot, rotation.low, rotation.to_low);
  planned.push_back(rotation.to_high);
  balance_->Add(rotation.to_high, rotation.high);
}

}  // namespace attic
