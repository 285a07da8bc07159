// How many slots each node has at each rank, and how far that is from its share.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_BALANCE_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_BALANCE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "api/cluster_map.h"
#include "server/cluster/placement/shares.h"

namespace attic {

// Of each node, and each k up to `replicas`, the number of slots that have it among their first k.
// It is balanced when that is at most `imbalance_max` of its share away from it, rounded outwards
// to whole slots. Not thread-safe.
class Balance {
 public:
  Balance(Shares shares, uint32_t replicas, double imbalance_max);

  // The node takes, or loses, rank `rank` (from 0) of a slot.
  void Add(uint32_t node, uint32_t rank) { Change(node, rank, +1); }
  void Remove(uint32_t node, uint32_t rank) { Change(node, rank, -1); }

  // Whether the node would be at most at its share, rounded up, with one more slot at that rank.
  bool HasRoom(uint32_t node, uint32_t rank) const { return room_[rank][node]; }

  // How much worse the sum of all penalties would be if the node took a slot at that rank, and how
  // much better if it lost one. Penalties are the squared distance from the share over the share,
  // and much more beyond the bounds.
  double CostOfAdding(uint32_t node, uint32_t rank) const;
  double GainOfRemoving(uint32_t node, uint32_t rank) const;
  // The same for a node that goes, within a slot, from rank `high` to rank `low`, which is less,
  // and one that goes from `low` to `high`.
  double CostOfRaising(uint32_t node, uint32_t high, uint32_t low) const;
  double GainOfLowering(uint32_t node, uint32_t low, uint32_t high) const;

  // How far the node is over its upper or under its lower bound at its worst k, as a part of its
  // share; 0 within bounds. Above 0: over.
  double Excess(uint32_t node) const;

 private:
  struct Bound {
    double share = 0;
    int64_t low = 0;
    int64_t high = 0;
  };

  void Change(uint32_t node, uint32_t rank, int64_t by);
  // Summed over ranks [begin, end).
  double CostOfOneMore(uint32_t node, uint32_t begin, uint32_t end) const;
  double GainOfOneLess(uint32_t node, uint32_t begin, uint32_t end) const;
  double Penalty(uint32_t k, uint32_t node, int64_t count) const;

  const uint32_t replicas_;
  // [k - 1][node].
  std::array<std::vector<Bound>, kReplicasMax> bounds_;
  std::array<std::vector<int64_t>, kReplicasMax> counts_;
  std::array<std::vector<uint8_t>, kReplicasMax> room_;  // [rank][node]
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_BALANCE_H_
