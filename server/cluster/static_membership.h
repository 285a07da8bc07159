// Membership that does not change: a file says which nodes there are.
#ifndef ATTIC_SERVER_CLUSTER_STATIC_MEMBERSHIP_H_
#define ATTIC_SERVER_CLUSTER_STATIC_MEMBERSHIP_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/cluster/membership.h"

namespace attic {

// All nodes read the same file, and make the same map of it:
//
//   {"cluster": "name", "epoch": 1, "slots": 4096, "replicas": 2,
//    "nodes": [{"id": "a", "address": "10.0.0.1:7400", "zone": "z1", "capacity": 64}, ...]}
//
// epoch (1), slots (4,096), replicas (2: of sessions that say nothing else), zone ("") and capacity
// (1) may be left out. All nodes are taken to be live: clients find out by themselves which are. A
// node that was away fills itself from the others as ever. INVALID_ARGUMENT naming what is wrong
// with the file, NOT_FOUND when it cannot be read or node_id is none of its nodes.
absl::StatusOr<std::shared_ptr<Membership>> ReadStaticMembership(const std::string& file,
                                                                 const std::string& node_id);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_STATIC_MEMBERSHIP_H_
