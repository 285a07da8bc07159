// What was appended and is not done with yet: which replica holds which part, and what that makes
// of it under the session's policy. No network and no threads: the append stream's bookkeeping.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_APPEND_WINDOW_H_
#define ATTIC_CLIENT_CPP_CLUSTER_APPEND_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_routes.h"
#include "client/cpp/cluster/shard_batches.h"

namespace attic {

// A part of a batch on its way to the replicas of its shard.
struct ShardWrite {
  enum class Stage : uint8_t { kWaiting, kSent, kHeld };
  struct Replica {
    Stage stage = Stage::kWaiting;
    AppendAck ack;  // of the shard, once held
  };

  std::shared_ptr<const SessionInfo> info;
  ShardAppend append;
  uint32_t slot = 0;
  size_t bytes = 0;
  uint64_t generation = 0;                  // of the session in the cache
  std::map<std::string, Replica> replicas;  // by node id
  bool acknowledged = false;
  AppendAck ack;  // of the policy, in positions of the session
};

// The unfinished writes to one shard, in order, and how its replicas took the last.
struct ShardLane {
  struct Node {
    absl::Time hold_until = absl::InfinitePast();  // nothing is sent before
    bool lagging = false;                          // lacks what comes before the first of the lane
    absl::Status refusal;                          // the last, of one that lags
  };
  std::deque<std::shared_ptr<ShardWrite>> writes;
  std::map<std::string, Node> nodes;  // by node id

  // Whether `write` is the first that the node has not got.
  bool IsFirstMissing(const ShardWrite& write, const std::string& node_id) const;
};

struct WriteBatch {
  std::vector<std::shared_ptr<ShardWrite>> writes;
  size_t bytes = 0;
  absl::Time appended;
  bool acknowledged = false;  // by the policy, in all heads
  AppendAck ack;
};

// Whether a node that so refuses a write lacks what comes before it, or the session.
bool IsLag(const absl::Status& refusal);

// Sets write.acknowledged and write.ack when the policy is met by the current map, and who joins
// the slot has it; returns whether it just was.
bool Acknowledge(const ClusterMap& map, const ShardLane& lane, ShardWrite& write);

// Whether a replica that should hold the write, or is about to be one, may still get it: one that
// is neither down nor lagging.
bool IsAwaited(const ClusterMap& map, const ShardLane& lane, const ShardWrite& write);

// The error of a write that no replica will ever take: all of them are there and said that they
// lack what comes before, or the session. OK while one may.
absl::Status Hopeless(const ClusterMap& map, const ShardLane& lane, const ShardWrite& write);

// Of all writes: the smallest watermarks.
AppendAck AckOfBatch(const WriteBatch& batch);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_APPEND_WINDOW_H_
