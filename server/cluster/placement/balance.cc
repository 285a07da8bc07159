#include "server/cluster/placement/balance.h"

#include <algorithm>
#include <cmath>

namespace attic {
namespace {

// Shares come out of divisions: 12.0000001 is 12.
constexpr double kRounding = 1e-6;
// A slot beyond a bound outweighs what any move changes within bounds.
constexpr double kBeyondBounds = 1000;

}  // namespace

Balance::Balance(Shares shares, uint32_t replicas, double imbalance_max) : replicas_(replicas) {
  const size_t nodes = shares[0].size();
  for (uint32_t k = 0; k < kReplicasMax; ++k) {
    counts_[k].assign(nodes, 0);
    room_[k].assign(nodes, 0);
    for (const double share : shares[k]) {
      bounds_[k].push_back(
          {.share = share,
           .low = static_cast<int64_t>(std::floor(share * (1 - imbalance_max) + kRounding)),
           .high = static_cast<int64_t>(std::ceil(share * (1 + imbalance_max) - kRounding))});
    }
  }
  for (uint32_t node = 0; node < nodes; ++node) Change(node, 0, 0);
}

void Balance::Change(uint32_t node, uint32_t rank, int64_t by) {
  for (uint32_t k = rank; k < replicas_; ++k) counts_[k][node] += by;
  bool room = true;
  for (uint32_t k = replicas_; k-- > 0;) {
    room = room && static_cast<double>(counts_[k][node]) + kRounding < bounds_[k][node].share;
    room_[k][node] = room;
  }
}

double Balance::Penalty(uint32_t k, uint32_t node, int64_t count) const {
  const Bound& bound = bounds_[k][node];
  const double distance = static_cast<double>(count) - bound.share;
  const int64_t beyond = std::max<int64_t>({0, count - bound.high, bound.low - count});
  return (distance * distance + kBeyondBounds * static_cast<double>(beyond)) /
         std::max(bound.share, 1.0);
}

double Balance::CostOfOneMore(uint32_t node, uint32_t begin, uint32_t end) const {
  double cost = 0;
  for (uint32_t k = begin; k < end; ++k) {
    cost += Penalty(k, node, counts_[k][node] + 1) - Penalty(k, node, counts_[k][node]);
  }
  return cost;
}

double Balance::GainOfOneLess(uint32_t node, uint32_t begin, uint32_t end) const {
  double gain = 0;
  for (uint32_t k = begin; k < end; ++k) {
    gain += Penalty(k, node, counts_[k][node]) - Penalty(k, node, counts_[k][node] - 1);
  }
  return gain;
}

double Balance::CostOfAdding(uint32_t node, uint32_t rank) const {
  return CostOfOneMore(node, rank, replicas_);
}

double Balance::GainOfRemoving(uint32_t node, uint32_t rank) const {
  return GainOfOneLess(node, rank, replicas_);
}

double Balance::CostOfRaising(uint32_t node, uint32_t high, uint32_t low) const {
  return CostOfOneMore(node, low, high);
}

double Balance::GainOfLowering(uint32_t node, uint32_t low, uint32_t high) const {
  return GainOfOneLess(node, low, high);
}

double Balance::Excess(uint32_t node) const {
  double worst = 0;
  for (uint32_t k = 0; k < replicas_; ++k) {
    const Bound& bound = bounds_[k][node];
    const int64_t count = counts_[k][node];
    const int64_t beyond =
        count > bound.high ? count - bound.high : std::min<int64_t>(0, count - bound.low);
    const double excess = static_cast<double>(beyond) / std::max(bound.share, 1.0);
    if (std::abs(excess) > std::abs(worst)) worst = excess;
  }
  return worst;
}

}  // namespace attic
