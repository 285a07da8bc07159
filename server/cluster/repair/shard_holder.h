// What repair asks of the node's own store.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_SHARD_HOLDER_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_SHARD_HOLDER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "server/cluster/repair/shard_peer.h"

namespace attic {

// Takes the bytes of a snapshot; what came goes with the object unless Finish or OpenEmpty
// succeeded. Not thread-safe.
class ShardImport {
 public:
  virtual ~ShardImport() = default;
  // FAILED_PRECONDITION for a snapshot of another version, or built with other options.
  virtual absl::Status Write(std::string_view bytes) = 0;
  // ALREADY_EXISTS when somebody opened the shard meanwhile; DATA_LOSS for damaged bytes.
  virtual absl::Status Finish() = 0;
  // After FAILED_PRECONDITION of the above, which is of a snapshot built with other options than
  // this node's: opens the shard that it is of, without any rows. ALREADY_EXISTS as above;
  // FAILED_PRECONDITION when what came does not say what the shard is.
  virtual absl::Status OpenEmpty() = 0;
};

// Thread-safe.
class ShardHolder {
 public:
  virtual ~ShardHolder() = default;

  // Every shard and manifest held. UNAVAILABLE while the store reads sessions from its disk: what
  // is not listed is not held.
  virtual absl::StatusOr<std::vector<HeldShard>> List() = 0;
  // NOT_FOUND when the shard is not held; so for the calls below.
  virtual absl::StatusOr<HeldShard> Describe(const std::string& session_id) = 0;
  virtual absl::StatusOr<RowsDigest> Digest(const std::string& session_id, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::unique_ptr<ShardImport>> Import(const HeldShard& shard) = 0;
  // Idempotent by position, as SessionStore::Append.
  virtual absl::Status Append(const AppendBatch& batch, absl::Time deadline) = 0;
  // OUT_OF_RANGE beyond the watermark.
  virtual absl::Status Truncate(const std::string& session_id, int64_t position) = 0;
  virtual absl::Status Close(const std::string& session_id) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_SHARD_HOLDER_H_
