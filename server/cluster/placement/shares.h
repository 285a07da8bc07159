// What each node should hold: its share of the slots by capacity.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_SHARES_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_SHARES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "api/cluster_map.h"

namespace attic {

struct ShareNode {
  double capacity = 0;  // 0: the node has no share
  uint32_t zone = 0;    // below the number of nodes
};

// shares[k - 1][node]: of how many slots the node should be among the first k replicas, for k up to
// `replicas`, which is at most the number of nodes that have a share. They add up to k times
// `slots`.
//
// They are proportional to capacity as far as that can be: a node is in a slot once, and of k zones
// or more a slot has k, so that no zone takes more than `slots`. (Of fewer zones a slot has all.)
// What such a node or zone cannot take is shared by the others.
using Shares = std::array<std::vector<double>, kReplicasMax>;
Shares ComputeShares(std::span<const ShareNode> nodes, size_t slots, uint32_t replicas);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_SHARES_H_
