// Session calls on many shards and all of their replicas: one message to each node, nodes in
// parallel, repeated until every replica that counts has answered.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_REPLICA_CALLS_H_
#define ATTIC_CLIENT_CPP_CLUSTER_REPLICA_CALLS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "attic/v1/shard.pb.h"
#include "client/cpp/cluster/cluster_core.h"

namespace attic {

// A call on one shard or manifest, which lies in the slot.
struct ShardTarget {
  uint32_t slot = 0;
  v1::ShardCall call;
};

struct ReplicaAnswer {
  std::string node_id;
  // What the node is in the slot, by the map it was called with.
  bool live = false;     // or joining
  bool joining = false;  // the slot, or again: nothing is done without it, nor by it alone
  bool incoming = false;
  bool not_filled = false;                    // it is being repaired and has not got this yet
  absl::StatusOr<SessionDescription> answer;  // of a close, an empty description
};
using ReplicaAnswers = std::vector<ReplicaAnswer>;  // of one target

enum class Audience : uint8_t {
  // All replicas that are not down, who joins, and incoming nodes as well as it goes. Who cannot be
  // reached is asked again until it answers, the map calls it down, or the deadline.
  kEveryReplica,
  // The live replicas: the answers of those that come soon, as long as there is a good one.
  kLiveReplicas,
};

// Answers per target, in order. A target for which no replica answered by the deadline has an
// UNAVAILABLE one. `prefix_hashes` are those of all calls that take some. Blocking.
std::vector<ReplicaAnswers> CallReplicas(ClusterCore& core, std::span<const ShardTarget> targets,
                                         uint32_t replicas, Audience audience,
                                         const std::string& prefix_hashes, absl::Time deadline);

// OK when every live replica, at least one, and whoever joins answered well; else the first error.
// Codes in `ignored` are no errors as long as one live replica answered well.
absl::Status AllWell(const ReplicaAnswers& answers, std::span<const absl::StatusCode> ignored = {});

// The description with the highest watermark among good answers of nodes that are not incoming;
// else the first error of a live replica.
absl::StatusOr<SessionDescription> Furthest(const ReplicaAnswers& answers);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_REPLICA_CALLS_H_
