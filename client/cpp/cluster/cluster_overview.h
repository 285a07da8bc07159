// What is asked of every node of a cluster, or of one after the other: lists, plans, status.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_OVERVIEW_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_OVERVIEW_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"

namespace attic {

// Every session that a node which is not down knows, once, in order of id.
absl::StatusOr<std::vector<SessionDescription>> ListCluster(ClusterCore& core,
                                                            ClusterSessions& sessions,
                                                            absl::Time deadline);

// The plans of all shards, each from one live replica, in order of layer, kv head and block.
absl::StatusOr<std::vector<HeadPlan>> PlanCluster(ClusterCore& core, ClusterSessions& sessions,
                                                  const std::string& session_id,
                                                  absl::Time deadline);

// Sums over the nodes that are not down; `sessions` counts shards and manifests. Version and
// instruction set are the first node's, the boot ids joined by commas, the epoch the map's, the
// uptime the shortest. UNAVAILABLE when a node does not answer.
absl::StatusOr<StoreStatus> ClusterStatus(ClusterCore& core, absl::Time deadline);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_OVERVIEW_H_
