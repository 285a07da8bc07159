// The part of SlotPlanner that moves slots for balance alone: moves, each of which makes the sum of
// all penalties smaller, as long as a node is out of its bounds.
#include <algorithm>
#include <cmath>
#include <utility>

#include "server/cluster/placement/rendezvous.h"
#include "server/cluster/placement/slot_planner.h"

namespace attic {
namespace {

constexpr double kGainMin = 1e-6;

}  // namespace

void SlotPlanner::MoveForBalance() {
  bool balanced = true;
  for (uint32_t node = 0; node < nodes_.size(); ++node) {
    balanced = balanced && ExcessToMend(node) == 0;
  }
  if (balanced) return;
  ListHeldSlots();
  while (MoveForBalanceOnce()) {
  }
}

// How far the node is out of its bounds, as far as it can be mended.
double SlotPlanner::ExcessToMend(uint32_t node) const {
  if (nodes_[node].leaving || !nodes_[node].up) return 0;
  const double excess = balance_->Excess(node);
  return excess < 0 && !nodes_[node].live ? 0 : excess;
}

void SlotPlanner::ListHeldSlots() {
  for (auto& of_rank : held_) of_rank.assign(nodes_.size(), {});
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (!slots_[slot].incoming.empty()) continue;
    for (uint32_t rank = 0; rank < planned_[slot].size(); ++rank) {
      const uint32_t node = planned_[slot][rank];
      if (nodes_[node].up && !nodes_[node].leaving && (empty_[slot] != 0 || Source(slot, rank))) {
        held_[rank][node].push_back(slot);
      }
    }
  }
}

// Moves as much as it can; a node for which nothing is found is not tried again. False when nothing
// moved: then nothing would move next time.
bool SlotPlanner::MoveForBalanceOnce() {
  std::vector<double> excess(nodes_.size());
  for (uint32_t node = 0; node < nodes_.size(); ++node) excess[node] = ExcessToMend(node);
  std::vector<uint8_t> stuck(nodes_.size(), 0);
  bool moved = false;
  for (;;) {
    uint32_t worst = kNone;
    for (uint32_t node = 0; node < nodes_.size(); ++node) {
      if (stuck[node] != 0 || excess[node] == 0) continue;
      if (worst == kNone || std::abs(excess[node]) > std::abs(excess[worst])) worst = node;
    }
    if (worst == kNone) return moved;
    if (MendBy(worst, excess)) {
      moved = true;
    } else {
      stuck[worst] = 1;
    }
  }
}

bool SlotPlanner::MayFill(uint32_t slot, size_t count) const {
  return empty_[slot] != 0 || incoming_ + count <= options_.incoming_max;
}

// One move that brings the node nearer to its bounds. Where there is none, for each slot has all
// zones, two zones of a slot exchange ranks; where zones have one node, or each slot has all nodes,
// two nodes do.
bool SlotPlanner::MendBy(uint32_t node, std::vector<double>& excess) {
  const Move move = excess[node] > 0 ? BestMoveFrom(node) : BestMoveTo(node);
  if (move.node != kNone) {
    if (!MayFill(move.slot, 1)) return false;
    const uint32_t from = planned_[move.slot][move.rank];
    MakeMove(move);
    excess[from] = ExcessToMend(from);
    excess[move.node] = ExcessToMend(move.node);
    return true;
  }
  Exchange exchange = excess[node] > 0 ? BestExchangeFrom(node) : BestExchangeTo(node);
  const bool exchanged = exchange.to_low != kNone && MayFill(exchange.slot, 2);
  if (!exchanged) exchange = BestRotation(node);
  if (exchange.to_low == kNone || !MayFill(exchange.slot, 1)) return false;
  const std::vector<uint32_t> before = planned_[exchange.slot];
  exchanged ? MakeExchange(exchange) : MakeRotation(exchange);
  for (const uint32_t changed : before) excess[changed] = ExcessToMend(changed);
  for (const uint32_t changed : planned_[exchange.slot]) excess[changed] = ExcessToMend(changed);
  return true;
}

bool SlotPlanner::Movable(uint32_t slot, uint32_t rank, uint32_t to) const {
  const Others others = OthersOf(slot, rank);
  if (others.HasNode(to)) return false;
  return !others.HasZone(nodes_[to].zone) || others.HasZone(nodes_[planned_[slot][rank]].zone);
}

// Of the slots in which `to` could take the place of `from`, the one that prefers it most.
SlotPlanner::Move SlotPlanner::BestSlot(uint32_t rank, uint32_t from, uint32_t to) const {
  Move best;
  for (const uint32_t slot : held_[rank][from]) {
    if (!Movable(slot, rank, to)) continue;
    const double score = RendezvousScore(nodes_[to].hash, slot, nodes_[to].capacity);
    if (best.node == kNone || score > best.gain) {
      best = {.slot = slot, .rank = rank, .node = to, .gain = score};
    }
  }
  return best;
}

SlotPlanner::Move SlotPlanner::BestMoveFrom(uint32_t node) const {
  Move best;
  std::vector<std::pair<double, uint32_t>> costs;
  for (uint32_t rank = 0; rank < replicas_; ++rank) {
    if (held_[rank][node].empty()) continue;
    const double gain = balance_->GainOfRemoving(node, rank);
    costs.clear();
    for (const uint32_t to : fillable_) {
      const double cost = balance_->CostOfAdding(to, rank);
      if (gain - cost > std::max(best.gain, kGainMin)) costs.emplace_back(cost, to);
    }
    std::sort(costs.begin(), costs.end());
    for (const auto& [cost, to] : costs) {
      Move move = BestSlot(rank, node, to);
      if (move.node == kNone) continue;
      move.gain = gain - cost;
      best = move;
      break;
    }
  }
  return best;
}

SlotPlanner::Move SlotPlanner::BestMoveTo(uint32_t node) const {
  Move best;
  std::vector<std::pair<double, uint32_t>> gains;  // negative, so that the largest comes first
  for (uint32_t rank = 0; rank < replicas_; ++rank) {
    const double cost = balance_->CostOfAdding(node, rank);
    gains.clear();
    for (uint32_t from = 0; from < nodes_.size(); ++from) {
      if (held_[rank][from].empty()) continue;
      const double gain = balance_->GainOfRemoving(from, rank);
      if (gain - cost > std::max(best.gain, kGainMin)) gains.emplace_back(-gain, from);
    }
    std::sort(gains.begin(), gains.end());
    for (const auto& [negative_gain, from] : gains) {
      Move move = BestSlot(rank, from, node);
      if (move.node == kNone) continue;
      move.gain = -negative_gain - cost;
      best = move;
      break;
    }
  }
  return best;
}

void SlotPlanner::MakeMove(const Move& move) {
  const bool at_once = empty_[move.slot] != 0;
  // A slot that is being filled moves no more: none of its ranks is listed any longer.
  for (uint32_t rank = 0; rank < planned_[move.slot].size(); ++rank) {
    if (at_once && rank != move.rank) continue;
    std::erase(held_[rank][planned_[move.slot][rank]], move.slot);
  }
  if (at_once) held_[move.rank][move.node].push_back(move.slot);
  Start(move.slot, move.rank, move.node);
}

}  // namespace attic
