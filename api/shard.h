// How a session is cut into shards, and where shards lie.
//
// In a cluster the unit that is placed is the shard: keys and values of one kv head of one layer,
// of one block of positions where the session is cut into blocks. A node holds a shard as a session
// of its own, with one kv head, one layer and positions counted from the block's first. What all
// shards of a session have in common is in its manifest: a session without tokens under the
// session's id.
#ifndef ATTIC_API_SHARD_H_
#define ATTIC_API_SHARD_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "api/prefix_hashes.h"
#include "api/types.h"

namespace attic {

// Which shard of a session.
struct ShardId {
  uint32_t layer = 0;
  uint32_t kv_head = 0;
  uint32_t block = 0;  // of Replication::shard_tokens positions

  bool operator==(const ShardId&) const = default;
  auto operator<=>(const ShardId&) const = default;
};

// Divides a session's id from what follows in the name of a shard; in no id that a user chooses.
inline constexpr char kShardSeparator = '#';

// The id under which a node holds a shard: "book#3.1" is kv head 1 of layer 3, "book#3.1.2" its
// block 2.
std::string ShardSessionId(const std::string& session_id, const ShardId& shard);

struct ShardName {
  std::string session_id;
  ShardId shard;
  bool operator==(const ShardName&) const = default;
};
// The opposite; none for what ShardSessionId never returns, as the id of a manifest.
std::optional<ShardName> ParseShardSessionId(const std::string& id);

// The model of a shard: one kv head and its query heads.
Fingerprint ShardFingerprint(const Fingerprint& session);

// Slots, in [0, slots), are the same in every process and release: XXH3 of the arguments, seed 0.
uint32_t SlotOfShard(const std::string& placement_key, const ShardId& shard, uint32_t slots);
uint32_t SlotOfManifest(const std::string& session_id, uint32_t slots);

// What a session's shards are placed by: the first of its prefix hashes in hexadecimal, so that
// sessions that may share a prefix lie on the same nodes; its id if there is none.
std::string PlacementKey(const std::string& session_id, std::span<const PrefixHash> prefix_hashes);

}  // namespace attic

#endif  // ATTIC_API_SHARD_H_
