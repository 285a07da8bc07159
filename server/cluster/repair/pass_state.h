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
  uint64_t tasks_left = 0;        // that this pass does not get to
  std::set<uint32_t> unfinished;  // slots
  bool abandoned = false;
  std::string error;  // the last
  absl::Time again_at = absl::InfiniteFuture();

  void LookAgain(absl::Time at) { again_at = std::min(again_at, at); }
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_PASS_STATE_H_
