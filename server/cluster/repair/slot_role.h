// What a node has to do with the slots of a map, and with a shard that it or others hold. Pure
// functions.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_SLOT_ROLE_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_SLOT_ROLE_H_

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "api/cluster_map.h"
#include "server/cluster/repair/shard_peer.h"

namespace attic {

// Of a node that is no replica: behind all of them.
inline constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

struct SlotRole {
  // A replica other than this node.
  struct Other {
    uint32_t node = 0;  // index in the map
    uint32_t rank = 0;  // a shard of R replicas belongs to ranks below R
    NodeState state = NodeState::kLive;
  };

  uint32_t rank = kNoRank;      // of this node
  bool live = false;            // this node is, and so holds the truth of what it is a replica of
  bool incoming = false;        // this node is being filled
  std::vector<Other> replicas;  // in order of rank

  bool filled() const { return rank != kNoRank || incoming; }
};

SlotRole RoleIn(const ClusterMap& map, uint32_t slot, uint32_t node);

// What is known to be held by nodes: by index, then by id. Nodes that did not answer are missing.
using ShardsById = std::map<std::string, HeldShard>;
using Inventories = std::map<uint32_t, ShardsById>;

enum class ShardAction : uint8_t {
  kNone = 1,
  kFill = 2,   // compare with the sources, and pull what is missing
  kClose = 3,  // its callers closed it while this node was away
  kDrop = 4,   // it belongs to others, who seem to hold as much
};

// Whether the node may conclude that a shard was closed, where no live replica holds it.
struct Closable {
  bool by_replica = false;  // the node was away, and held it before
  bool by_others = false;   // it is of another slot, and all its replicas were seen to hold it
};

struct ShardDecision {
  ShardAction action = ShardAction::kNone;
  // In order of rank. kFill: whom to compare with, all live that hold it, or, where no replica is
  // live, all repairing that do. Otherwise the live replicas that the decision rests on.
  std::vector<SlotRole::Other> sources;
  int64_t sources_watermark = 0;  // the largest, of those
  bool all_known = true;          // no replica whose word counts failed to answer
};

// What to do with the shard, which this node (`own`) or others hold, or both.
//
//   * Of a slot that the node is a replica of, of small enough rank, or incoming: the truth is what
//     live replicas hold. Where they hold the shard, it is filled from them; where none of them
//     does, and all of them said so, and there is one besides this node, it was closed, if that may
//     be concluded. Without any live replica, this node included, the repairing ones fill each
//     other, and nobody closes anything.
//   * Of any other slot: it may be dropped when all replicas that should hold it are live and hold
//     as much. Where none of them does, it was closed, if that may be concluded.
// `replicas_default` stands for a number of replicas of 0.
ShardDecision Decide(const std::string& session_id, const SlotRole& role,
                     const std::optional<HeldShard>& own, const Inventories& inventories,
                     const Closable& closable, uint32_t replicas_default);

// Whether the node may not call the slot filled, whatever it holds, because of nodes that did not
// answer: a live one; or, where none is live, one that is repairing. `await_down`: for a replica,
// the same of one that is down and may come back with what it alone holds.
bool Awaits(const SlotRole& role, const Inventories& inventories, bool await_down);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_SLOT_ROLE_H_
