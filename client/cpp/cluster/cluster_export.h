// A session of a cluster as one file (SNAPSHOT.md).
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_EXPORT_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_EXPORT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"

namespace attic {

// As Client::ExportSession. Every layer up to what all of its heads hold when the call begins. A
// shard whose node goes is begun anew from another replica. ABORTED when the session was truncated
// below that meanwhile.
absl::Status ExportCluster(ClusterCore& core, ClusterSessions& sessions,
                           const std::string& session_id, absl::Time deadline,
                           const SnapshotWrite& write);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_EXPORT_H_
