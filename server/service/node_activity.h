// What a node of a cluster knows of its cluster and of its own part in it.
#ifndef ATTIC_SERVER_SERVICE_NODE_ACTIVITY_H_
#define ATTIC_SERVER_SERVICE_NODE_ACTIVITY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "server/cluster/membership.h"
#include "server/cluster/repair_progress.h"
#include "server/cluster/slot_gate.h"
#include "server/service/executor.h"

namespace attic {

struct NodeActivity {
  std::string node_id;  // empty before the node has joined
  ClusterMapPtr map;    // the newest that the node knows; null: none
  bool controlling = false;
  std::optional<EtcdCalls> etcd;  // none where membership does not come from etcd
  RepairProgress repair;
  std::array<uint64_t, kGateRefusals> refusals{};  // since the start, by GateRefusal
  Executor::Load calls;                            // of ShardService.Call and ClusterService
  Executor::Load transfers;                        // of what other nodes read
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_NODE_ACTIVITY_H_
