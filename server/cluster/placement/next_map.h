// What the controller does: from the map of now and what is seen of the nodes to the next map. Pure
// functions, which the elected controller and simulations share.
#ifndef ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_MAP_H_
#define ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_MAP_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "api/cluster_map.h"

namespace attic {

struct PlacementOptions {
  uint32_t slots = 4096;          // of a new cluster; an existing one keeps its number
  uint32_t replicas_default = 2;  // of sessions that say nothing else
  uint32_t replicas = 3;          // of a slot, as far as there are nodes; at least replicas_default
  // How long a node may be down before other nodes take its place. Its slots are served by their
  // other replicas from the start.
  absl::Duration replace_after = absl::Minutes(5);
  // Slots filled by other nodes at a time, in the whole cluster: a bound on movement.
  uint32_t incoming_max = 64;
  // How far a node may be from its share of the slots before slots are moved for balance alone.
  double imbalance_max = 0.10;
};

// A node that is registered now.
struct Member {
  std::string node_id;
  std::string address;
  std::string zone;
  uint64_t capacity = 1;
  std::string boot_id;
  // Its last report (SyncReport in server/cluster/membership.h), as far as it is of this boot.
  uint64_t synced_epoch = 0;
  bool node_synced = false;
  std::set<uint32_t> synced_slots;
};

// What the controller sees. Times are of its own monotonic clock.
struct ClusterView {
  absl::Time now;
  std::vector<Member> members;     // in order of node_id
  std::set<std::string> draining;  // wishes of operators
  std::set<std::string> removed;   //
  std::map<std::string, absl::Time>
      down_since;          // of nodes that are not members; kept by the caller
  uint64_t rebalance = 0;  // counts up when an operator asks for it
};

// The map that follows `map`, whose epoch is one more, or `map` itself where nothing has to change.
// An empty `map` (epoch 0) becomes the first one as soon as there is a member.
ClusterMap NextMap(const ClusterMap& map, const ClusterView& view, const PlacementOptions& options);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PLACEMENT_NEXT_MAP_H_
