// Makes a cluster's snapshot of a session and its shards, and takes one apart (SNAPSHOT.md).
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SNAPSHOT_FILE_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SNAPSHOT_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/shard.h"
#include "api/types.h"
#include "client/cpp/cluster/cluster_snapshot_format.h"

namespace attic {

// Begin; then for each shard StartShard, Bytes as often as there are some, EndShard; then End. What
// they return, one behind the other, is the file. StartShard instead of EndShard begins the shard
// anew. Not thread-safe.
class ClusterSnapshotWriter {
 public:
  // `identity` differs from that of other files.
  explicit ClusterSnapshotWriter(uint64_t identity) : identity_(identity) {}

  // The session as the cluster describes it; the watermarks of its layers are those of the file.
  std::string Begin(const SessionDescription& session);
  std::string StartShard(const ShardId& shard);
  // At most kClusterFramePayloadMax.
  std::string Bytes(std::string_view bytes);
  std::string EndShard();
  std::string End();

 private:
  std::string Frame(ClusterFrameKind kind, const ShardId& shard, std::string_view payload);

  const uint64_t identity_;
  ShardId shard_;
  uint64_t shard_bytes_ = 0;
  uint64_t frames_ = 0;
  uint64_t bytes_ = 0;
};

// What a file holds, in its order. An error ends the reading.
class ClusterSnapshotVisitor {
 public:
  virtual ~ClusterSnapshotVisitor() = default;
  virtual absl::Status OnSession(const SessionDescription& session) = 0;
  // What came of this shard before, if anything, is void.
  virtual absl::Status OnShard(const ShardId& shard) = 0;
  virtual absl::Status OnBytes(std::string_view bytes) = 0;
  virtual absl::Status OnShardEnd() = 0;
};

// Keeps at most one frame. Not thread-safe. What the file says is not trusted by its checksums:
// whoever wrote it may have written anything.
class ClusterSnapshotReader {
 public:
  explicit ClusterSnapshotReader(ClusterSnapshotVisitor& visitor) : visitor_(visitor) {}

  // The next bytes, as many as there are. After an error every call returns it.
  //   DATA_LOSS: damaged; FAILED_PRECONDITION: of another version, or of one store.
  absl::Status Read(std::string_view bytes);
  // There are no more bytes. DATA_LOSS when they were not all of a file.
  absl::Status Finish();

 private:
  absl::Status ReadAll(std::string_view bytes);
  // Takes what is complete off the front of `bytes`; false when that is nothing.
  absl::StatusOr<bool> TakePart(std::string_view& bytes);
  absl::Status TakeFrame(const ClusterFrame& frame, std::string_view payload);
  absl::Status TakeSession(std::string_view payload);
  absl::Status TakeOfShard(const ClusterFrame& frame, std::string_view payload);

  ClusterSnapshotVisitor& visitor_;
  absl::Status error_;
  std::string pending_;  // the beginning of a header or frame
  bool has_header_ = false, has_session_ = false, ended_ = false;
  uint64_t identity_ = 0;
  uint64_t frames_ = 0;
  uint64_t bytes_ = 0;
  std::optional<ShardId> shard_;  // that has begun and not ended
  uint64_t shard_bytes_ = 0;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SNAPSHOT_FILE_H_
