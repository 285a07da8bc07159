// The nodes of the next map: who is there, and in which state.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_NODES_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_NODES_H_

#include <cstdint>
#include <vector>

#include "api/cluster_map.h"
#include "server/cluster/placement/next_map.h"
#include "server/cluster/placement/slot_planner.h"

namespace attic {

// All vectors but `moved` are by index in `nodes`.
struct NextNodes {
  std::vector<ClusterNode> nodes;      // of the old map and new ones, in order of id
  std::vector<uint32_t> moved;         // by index in the old map: where the node is in `nodes`
  std::vector<PlanNode> plan;          //
  std::vector<const Member*> members;  // null where the node is not registered; of the view
  std::vector<uint8_t> back;           // was down and is registered again
  std::vector<uint8_t> ended;          // is not registered, and will not be missed
};

// State changes are of `epoch`. The view must outlive the result.
NextNodes FindNextNodes(const ClusterMap& map, const ClusterView& view,
                        const PlacementOptions& options, uint64_t epoch);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_NODES_H_
