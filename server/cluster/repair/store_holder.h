// The node's own store, as repair sees it.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_STORE_HOLDER_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_STORE_HOLDER_H_

#include <memory>
#include <string>
#include <vector>

#include "server/cluster/repair/shard_holder.h"
#include "server/session/session_store.h"

namespace attic {

// Thread-safe.
class StoreHolder final : public ShardHolder {
 public:
  // `store` outlives it.
  explicit StoreHolder(SessionStore& store) : store_(store) {}

  absl::StatusOr<std::vector<HeldShard>> List() override;
  absl::StatusOr<HeldShard> Describe(const std::string& session_id) override;
  absl::StatusOr<RowsDigest> Digest(const std::string& session_id, absl::Time deadline) override;
  absl::StatusOr<std::unique_ptr<ShardImport>> Import(const HeldShard& shard) override;
  absl::Status Append(const AppendBatch& batch, absl::Time deadline) override;
  absl::Status Truncate(const std::string& session_id, int64_t position) override;
  absl::Status Close(const std::string& session_id) override;

 private:
  SessionStore& store_;
};

// What SessionStore::ListPlaced says.
HeldShard ToHeldShard(const PlacedSession& session);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_STORE_HOLDER_H_
