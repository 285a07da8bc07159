// Which nodes of a cluster hold which shards of a session: pure functions of map and session.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_ROUTES_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_ROUTES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/cluster_map.h"
#include "api/shard.h"
#include "api/types.h"

namespace attic {

// What the manifest says of a session: everything that finding its shards takes.
struct SessionInfo {
  std::string session_id;
  Fingerprint fingerprint;
  std::vector<uint32_t> layers;  // stored ones, in order
  std::string placement_key;
  Replication replication;  // with replicas >= 1
  Durability durability = Durability::kMemory;
  std::string tenant;
  uint32_t ttl_seconds = 0;
  bool pinned = false;

  bool Stores(uint32_t layer) const;
  bool operator==(const SessionInfo&) const = default;
};

// Of the description of a manifest; INTERNAL when it is none.
absl::StatusOr<SessionInfo> SessionInfoOf(const SessionDescription& manifest);

// Indices into ClusterMap::nodes.
struct SlotRoute {
  std::vector<uint32_t> writers;   // to be written to: not down
  std::vector<uint32_t> readers;   // of the writers, those that are live
  std::vector<uint32_t> joining;   // no replicas yet, but nothing is acknowledged without them
  std::vector<uint32_t> incoming;  // written to as well as it goes
  size_t copies = 0;               // that the map has, nodes that are down included
};

// For a session of so many replicas; a slot beyond the map's has no nodes.
SlotRoute RouteOf(const ClusterMap& map, uint32_t slot, uint32_t replicas);

// How many of the writers must hold what is acknowledged, at least 1. `lagging` of them are being
// repaired and refused it because they lack what comes before.
size_t AcksNeeded(AckPolicy policy, const SlotRoute& route, size_t lagging);

// All heads of a layer, in order, of one block.
std::vector<ShardId> ShardsOfLayer(const SessionInfo& info, uint32_t layer, uint32_t block);

// A stretch of positions that lies in one block.
struct BlockStretch {
  uint32_t block = 0;
  int64_t block_begin = 0;  // the position in the session that is the shard's 0
  PositionRange range;      // in the session

  PositionRange local() const {
    return {.begin = range.begin - block_begin, .end = range.end - block_begin};
  }
};

// The blocks that a range of positions touches, in order; an empty range lies in the block of its
// beginning. The end must be finite.
std::vector<BlockStretch> BlocksOf(int64_t shard_tokens, const PositionRange& range);

// Blocks of a session are numbered within this.
inline constexpr uint32_t kShardBlocksMax = 1u << 20;

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_ROUTES_H_
