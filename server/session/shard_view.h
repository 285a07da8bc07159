// What a node of a cluster tells other nodes about the sessions it holds.
#ifndef ATTIC_SERVER_SESSION_SHARD_VIEW_H_
#define ATTIC_SERVER_SESSION_SHARD_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attic {

// A shard or a manifest.
struct PlacedSession {
  std::string session_id;
  uint32_t slot = 0;
  uint32_t replicas = 0;
  int64_t watermark = 0;
  bool durable = false;

  bool operator==(const PlacedSession&) const = default;
};

class SessionStore;

// One of them, as SessionStore::ListPlaced says. NOT_FOUND, also of a session without a placement.
absl::StatusOr<PlacedSession> FindPlaced(SessionStore& store, const std::string& session_id);

inline constexpr int64_t kDigestBlockTokens = 8192;

// What a session held at one moment: equal on two nodes when keys and values are, whatever the
// index over them.
struct RowsDigest {
  int64_t watermark = 0;
  // XXH3 (64 bits, seed 0) over keys and then values of each whole block of kDigestBlockTokens
  // positions from the first, rows in order of position.
  std::vector<uint64_t> blocks;
  uint64_t rest = 0;  // the same of what remains below the watermark; 0 when nothing does

  bool operator==(const RowsDigest&) const = default;
};

// Keys and values of consecutive positions of a layer, as an AppendBatch has them.
struct ShardRows {
  uint32_t layer = 0;
  int64_t begin_position = 0;
  size_t count = 0;
  std::vector<std::byte> keys;    // (count, kv_heads, head_dim)
  std::vector<std::byte> values;  // (count, kv_heads, value_dim)
};

// Rows of a session as they were at one moment, in order of position. Not thread-safe; must not
// outlive its store.
class RowsSource {
 public:
  virtual ~RowsSource() = default;
  // Sets `rows` to the next ones, about 1 MiB of them; false behind the last. Errors as of Attend.
  virtual absl::StatusOr<bool> Next(ShardRows& rows) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SHARD_VIEW_H_
