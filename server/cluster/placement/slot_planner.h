// Decides which slots are filled by which nodes next.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_SLOT_PLANNER_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_SLOT_PLANNER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "api/cluster_map.h"
#include "server/cluster/placement/balance.h"

namespace attic {

// What the planner knows of a node.
struct PlanNode {
  uint64_t hash = 0;  // NodeHash
  double capacity = 1;
  uint32_t zone = 0;     // number of its zone, below the number of nodes
  bool up = false;       // live or repairing
  bool live = false;     // what can be copied from
  bool leaving = false;  // its slots go to other nodes
  bool emptied = false;  // an operator wants that; `leaving` too
  bool lost = false;     // down for long, or gone; `leaving` too
  bool gone = false;     // what it held does not come back; `leaving` too
};

struct PlanOptions {
  uint32_t replicas = 3;
  uint32_t replicas_default = 2;
  size_t incoming_max = 64;
  double imbalance_max = 0.10;
};

// Whether a node that is to take `rank` of the slot could be filled: whether what sessions of
// `rank + 1` replicas or more, and those of the default number, have in the slot is on a live node,
// or is on no node that could come back while there is a live one.
bool HasSource(std::span<const PlanNode> nodes, const SlotAssignment& slot, uint32_t rank,
               uint32_t replicas_default);

// Replicas of the slot with its incoming nodes in the ranks they are to take.
std::vector<uint32_t> PlannedReplicas(const SlotAssignment& slot);

// Plans until nothing is left to do or `incoming_max` is reached. Deterministic; what one run has
// planned the next one leaves as it is. Used once, by one thread. Borrows its arguments.
class SlotPlanner {
 public:
  SlotPlanner(std::span<const PlanNode> nodes, const PlanOptions& options,
              std::vector<SlotAssignment>& slots);

  // Adds to `incoming` and `incoming_ranks` of slots, in this order: for replicas that are lost or
  // missing, for nodes that are emptied, for zones, for balance. Slots whose replicas are all gone
  // get new ones that hold nothing. A slot has one incoming node at a time, or the two of an
  // exchange between zones.
  void Run();

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Need {
    uint32_t urgency = 0;  // the less, the sooner
    uint32_t slot = 0;
  };
  struct Move {
    uint32_t slot = 0;
    uint32_t rank = 0;
    uint32_t node = kNone;
    double gain = 0;
  };
  // Two zones of a slot change ranks: `to_low` takes rank `low`, and is of the zone of who had rank
  // `high`, which is larger; the other way round for `to_high`.
  struct Exchange {
    uint32_t slot = 0;
    uint32_t low = 0;
    uint32_t high = 0;
    uint32_t to_low = kNone;
    uint32_t to_high = kNone;
    double gain = 0;
  };
  // [rank][zone]: nodes that may be given slots, with what that costs, in order of it.
  using ZoneCosts = std::array<std::vector<std::vector<std::pair<double, uint32_t>>>, kReplicasMax>;

  // What the slot has at other ranks than `rank`.
  struct Others {
    std::array<uint32_t, 2 * kReplicasMax> nodes;  // that cannot be taken again
    std::array<uint32_t, kReplicasMax> zones;      // that are better not taken again
    size_t node_count = 0;
    size_t zone_count = 0;
    bool HasNode(uint32_t node) const;
    bool HasZone(uint32_t zone) const;
  };
  Others OthersOf(uint32_t slot, uint32_t rank) const;

  bool Source(uint32_t slot, uint32_t rank) const;
  uint32_t ZonesWithin(uint32_t slot) const;
  // The node that should take the rank, or kNone.
  uint32_t Choose(uint32_t slot, uint32_t rank);
  const std::vector<double>& ScoresOf(uint32_t slot);

  // The node is to take the rank: as an incoming one, or at once in a slot that holds nothing.
  void Start(uint32_t slot, uint32_t rank, uint32_t node);
  // The last rank is given up.
  void DropLast(uint32_t slot);

  void TrimSlots();
  void PlaceEmptySlots();
  void MeetNeeds();
  void MeetNeedsOf(uint32_t slot);
  bool EmptyRank(uint32_t slot, uint32_t rank);
  void SpreadOverZones();
  Move BestMoveToOtherZone(uint32_t slot);

  // In balance_moves.cc.
  void MoveForBalance();
  bool MoveForBalanceOnce();
  bool MendBy(uint32_t node, std::vector<double>& excess);
  bool MayFill(uint32_t slot, size_t count) const;
  void ListHeldSlots();
  double ExcessToMend(uint32_t node) const;
  Move BestMoveFrom(uint32_t node) const;
  Move BestMoveTo(uint32_t node) const;
  Move BestSlot(uint32_t rank, uint32_t from, uint32_t to) const;
  bool Movable(uint32_t slot, uint32_t rank, uint32_t to) const;
  void MakeMove(const Move& move);

  // In zone_exchanges.cc.
  Exchange BestExchangeFrom(uint32_t node) const;
  Exchange BestExchangeTo(uint32_t node) const;
  ZoneCosts CostsByZone() const;
  void Consider(const ZoneCosts& costs, uint32_t slot, uint32_t low, uint32_t high,
                Exchange& best) const;
  void ConsiderSlotsOf(const ZoneCosts& costs, const std::vector<uint32_t>& nodes, uint32_t low,
                       uint32_t to_zone, Exchange& best) const;
  void MakeExchange(const Exchange& exchange);
  Exchange BestRotation(uint32_t node) const;
  void ConsiderRotation(uint32_t slot, uint32_t rank, Exchange& best) const;
  void MakeRotation(const Exchange& rotation);

  const std::span<const PlanNode> nodes_;
  const PlanOptions options_;
  std::vector<SlotAssignment>& slots_;
  std::vector<uint32_t> fillable_;    // nodes that may be given slots
  std::vector<uint32_t> fill_zones_;  // their zones, sorted
  uint32_t replicas_ = 0;             // of a slot, as far as there are nodes
  uint32_t zones_ = 0;                // of nodes that stay
  std::optional<Balance> balance_;
  size_t incoming_ = 0;
  std::vector<uint8_t> empty_;  // slots that hold nothing
  // PlannedReplicas of slots, and the last rank for a node that is rotated out of another.
  std::vector<std::vector<uint32_t>> planned_;
  // [rank][node]: slots where the node is planned at the rank.
  std::array<std::vector<std::vector<uint32_t>>, kReplicasMax> held_;
  std::vector<double> scores_;  // of fillable_ for scored_slot_
  uint32_t scored_slot_ = kNone;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_SLOT_PLANNER_H_
