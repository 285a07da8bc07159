#include "client/cpp/cluster/cluster_routes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace attic {

bool SessionInfo::Stores(uint32_t layer) const {
  return std::binary_search(layers.begin(), layers.end(), layer);
}

absl::StatusOr<SessionInfo> SessionInfoOf(const SessionDescription& manifest) {
  const auto malformed = [&](const char* what) {
    return absl::InternalError(
        absl::StrCat("session_id: the manifest of ", manifest.session_id, " has ", what));
  };
  if (!manifest.placement.has_value()) return malformed("no placement");
  const Fingerprint& f = manifest.fingerprint;
  if (f.kv_heads == 0 || f.q_heads % f.kv_heads != 0) return malformed("no whole groups of heads");
  const Replication& replication = manifest.placement->replication;
  if (replication.replicas < 1 || replication.replicas > kReplicasMax) {
    return malformed("no number of replicas");
  }
  if (replication.shard_tokens < 0) return malformed("blocks of negative length");
  SessionInfo info{.session_id = manifest.session_id,
                   .fingerprint = f,
                   .layers = {},
                   .placement_key = manifest.placement->key,
                   .replication = replication,
                   .durability = manifest.durability,
                   .tenant = manifest.tenant,
                   .ttl_seconds = manifest.ttl_seconds,
                   .pinned = manifest.pinned};
  for (const LayerDescription& layer : manifest.layers) info.layers.push_back(layer.layer);
  std::sort(info.layers.begin(), info.layers.end());
  if (info.layers.empty()) return malformed("no layers");
  return info;
}

SlotRoute RouteOf(const ClusterMap& map, uint32_t slot, uint32_t replicas) {
  SlotRoute route;
  if (slot >= map.slots.size()) return route;
  const SlotAssignment& assignment = map.slots[slot];
  for (const uint32_t node : ReplicasOf(assignment, replicas)) {
    ++route.copies;
    if (map.nodes[node].state == NodeState::kDown) continue;
    route.writers.push_back(node);
    if (map.nodes[node].state == NodeState::kLive) route.readers.push_back(node);
  }
  for (size_t i = 0; i < assignment.incoming.size(); ++i) {
    const uint32_t node = assignment.incoming[i];
    if (map.nodes[node].state == NodeState::kDown) continue;
    const bool joins = assignment.joining && IncomingRank(assignment, i) < replicas;
    (joins ? route.joining : route.incoming).push_back(node);
  }
  return route;
}

size_t AcksNeeded(AckPolicy policy, const SlotRoute& route, size_t lagging) {
  switch (policy) {
    case AckPolicy::kOne:
      return 1;
    case AckPolicy::kQuorum:
      return route.copies / 2 + 1;
    case AckPolicy::kAll:
      break;
  }
  return std::max<size_t>(1, route.writers.size() - std::min(lagging, route.writers.size()));
}

std::vector<ShardId> ShardsOfLayer(const SessionInfo& info, uint32_t layer, uint32_t block) {
  std::vector<ShardId> shards;
  for (uint32_t head = 0; head < info.fingerprint.kv_heads; ++head) {
    shards.push_back({.layer = layer, .kv_head = head, .block = block});
  }
  return shards;
}

std::vector<BlockStretch> BlocksOf(int64_t shard_tokens, const PositionRange& range) {
  ATTIC_CHECK(range.begin >= 0 && range.begin <= range.end);
  if (shard_tokens == 0) return {{.block = 0, .block_begin = 0, .range = range}};
  std::vector<BlockStretch> blocks;
  int64_t begin = range.begin;
  do {
    const int64_t block = begin / shard_tokens;
    if (block >= kShardBlocksMax) break;
    const int64_t next = (block + 1) * shard_tokens;
    blocks.push_back({.block = static_cast<uint32_t>(block),
                      .block_begin = block * shard_tokens,
                      .range = {.begin = begin, .end = std::min(range.end, next)}});
    begin = next;
  } while (begin < range.end);
  return blocks;
}

}  // namespace attic
