// The end of an import: every replica holds every shard, and no more of it than the file did.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_SHARD_SETTLEMENT_H_
#define ATTIC_CLIENT_CPP_CLUSTER_SHARD_SETTLEMENT_H_

#include <span>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_routes.h"
#include "client/cpp/cluster/snapshot_layout.h"

namespace attic {

// Of shards that one replica holds at least; at most limits.shard_calls_max of them. Live replicas
// that lack one get it from another. OK when as many hold each as the session's policy wants, nodes
// that are being repaired aside: else what kept the others from it, or UNAVAILABLE.
absl::Status SettleShards(ClusterCore& core, const SessionInfo& info,
                          std::span<const SnapshotShard> shards, absl::Time deadline);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_SHARD_SETTLEMENT_H_
