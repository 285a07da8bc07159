// What belongs to one run of RepairPass.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_PASS_STATE_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_PASS_STATE_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/cluster/repair/repair_pass.h"

namespace attic {

struct RepairPass::Task {
  uint32_t slot = 0;
  std::string session_id;
  SlotRole role;
  std::optional<HeldShard> own;
  ShardDecision decision;
  ShardFill fill;                                  // for kFill
  std::vector<std::shared_ptr<ShardPeer>> owners;  // for kClose and kDrop
  bool skipped = false;
  ShardOutcome outcome;
};

// What a peer is asked for: slots, or shards.
struct RepairPass::Question {
  uint32_t node = 0;
  std::shared_ptr<ShardPeer> peer;
  std::vector<uint32_t> slots;      // in order
  std::vector<std::string> shards;  // in order
  absl::Status status;
};

struct RepairPass::Pass {
  const PassRequest& request;
  const ClusterMap& map;
  absl::Time now;
  bool expected = false;               // the map has this process as a node that is not down
  uint32_t self = 0;                   // index
  bool away = false;                   // this node is not live
  std::map<uint32_t, SlotRole> roles;  // of the node's slots, and of those of shards it holds
  ShardsById own;
  Inventories inventories;
  std::vector<Task> tasks;
  uint64_t tasks_left = 0;          // that this pass does not get to
  std::set<uint32_t> unfinished;    // slots
  std::set<std::string> gaps_left;  // of the request's
  bool only_gaps = false;
  bool lacked = false;  // something, in a slot that is being filled
  bool abandoned = false;
  std::string error;  // the last
  absl::Time again_at = absl::InfiniteFuture();

  // In the slot of `role` this node follows others.
  bool Fills(const SlotRole& role) const { return away || role.incoming; }
  void Leave(const std::string& session_id) {
    if (request.gaps.contains(session_id)) gaps_left.insert(session_id);
  }
  void LookAgain(absl::Time at) { again_at = std::min(again_at, at); }
};

// Name of a failure of a node, in RepairPass::failures_.
std::string NodeFailure(const std::string& node_id);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_PASS_STATE_H_
