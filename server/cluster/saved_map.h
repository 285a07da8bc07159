// The cluster map as a node keeps it in its data directory, for the day when etcd has lost it.
#ifndef ATTIC_SERVER_CLUSTER_SAVED_MAP_H_
#define ATTIC_SERVER_CLUSTER_SAVED_MAP_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/cluster_map.h"
#include "server/cluster/membership.h"

namespace attic {

// In place of the map that was saved before; durable when it returns. For one caller at a time.
absl::Status SaveMap(const std::string& folder, const ClusterMap& map);

// The map that was saved last; null when there is none. DATA_LOSS when it is damaged,
// FAILED_PRECONDITION when it is that of another cluster.
absl::StatusOr<ClusterMapPtr> LoadMap(const std::string& folder, const std::string& cluster);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_SAVED_MAP_H_
