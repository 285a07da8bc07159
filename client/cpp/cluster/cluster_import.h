// A session of a cluster made of a file (SNAPSHOT.md).
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_IMPORT_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_IMPORT_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"

namespace attic {

// As Client::ImportSession. The id is taken, and the session described, from the beginning: other
// clients find what came of it so far. Every shard goes to all of its replicas at once; those that
// lack one at the end get it from another. As many must hold it as the session's policy says.
// After an error what was opened is closed; who is killed leaves it behind, to be closed.
absl::StatusOr<SessionDescription> ImportCluster(ClusterCore& core, ClusterSessions& sessions,
                                                 const ImportOptions& options, absl::Time deadline,
                                                 const SnapshotRead& read);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_IMPORT_H_
