// Searches of a session whose heads lie on many nodes.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SEARCH_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SEARCH_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"

namespace attic {

// See Client::Search, and ClusterAttend for the positions that are searched. Every shard is asked
// at one replica after the other until one answers.
absl::StatusOr<SearchAnswer> ClusterSearch(ClusterCore& core, ClusterSessions& sessions,
                                           const SearchRequest& request, absl::Time deadline);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SEARCH_H_
