// Which shards a snapshot of a session has, in the order of the file.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_SNAPSHOT_LAYOUT_H_
#define ATTIC_CLIENT_CPP_CLUSTER_SNAPSHOT_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "api/limits.h"
#include "api/shard.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_routes.h"

namespace attic {

// Of one session; more is no file of this program.
inline constexpr uint64_t kSnapshotShardsMax = uint64_t{1} << 20;

struct SnapshotShard {
  ShardId shard;
  int64_t positions = 0;  // the file holds so many of the shard's, from its first
  bool operator==(const SnapshotShard&) const = default;
};

// By layer, block and kv head, of blocks that hold something and of the first. A copy is a place in
// the order of its own.
class SnapshotLayout {
 public:
  // Of a session whose layers hold what `session` says. DATA_LOSS where that makes no sense,
  // RESOURCE_EXHAUSTED for more positions or shards than there may be.
  static absl::StatusOr<SnapshotLayout> Make(const SessionInfo& info,
                                             const SessionDescription& session,
                                             const Limits& limits);

  uint64_t size() const { return size_; }
  uint64_t index() const { return index_; }  // of the current shard
  bool AtEnd() const { return index_ == size_; }
  SnapshotShard Get() const;  // not at the end
  void Next();

  // The next shards, at most `count`, this one included, and moves behind them.
  std::vector<SnapshotShard> Take(size_t count);

 private:
  struct Layer {
    uint32_t layer = 0;
    int64_t positions = 0;
    uint32_t blocks = 0;
  };

  std::vector<Layer> layers_;
  uint32_t kv_heads_ = 0;
  int64_t shard_tokens_ = 0;
  uint64_t size_ = 0;
  uint64_t index_ = 0;
  size_t layer_ = 0;
  uint32_t block_ = 0;
  uint32_t kv_head_ = 0;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_SNAPSHOT_LAYOUT_H_
