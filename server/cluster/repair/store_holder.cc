#include "server/cluster/repair/store_holder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kListPage = 4096;

class StoreImport final : public ShardImport {
 public:
  explicit StoreImport(std::unique_ptr<SnapshotSink> sink) : sink_(std::move(sink)) {}
  absl::Status Write(std::string_view bytes) override { return sink_->Write(bytes); }
  absl::Status Finish() override { return sink_->Finish().status(); }

 private:
  const std::unique_ptr<SnapshotSink> sink_;
};

}  // namespace

HeldShard ToHeldShard(const PlacedSession& session) {
  return {.session_id = session.session_id,
          .slot = session.slot,
          .replicas = session.replicas,
          .watermark = session.watermark,
          .durability = session.durable ? Durability::kDurable : Durability::kMemory};
}

absl::StatusOr<std::vector<HeldShard>> StoreHolder::List() {
  if (const uint64_t count = store_.Status().recovering_sessions; count > 0) {
    return absl::UnavailableError(
        absl::StrCat("repair: ", count, " sessions are still read from disk"));
  }
  std::vector<HeldShard> shards;
  std::string after;
  for (;;) {
    const std::vector<PlacedSession> page = store_.ListPlaced(after, kListPage, {});
    for (const PlacedSession& session : page) shards.push_back(ToHeldShard(session));
    if (page.size() < kListPage) return shards;
    after = page.back().session_id;
  }
}

absl::StatusOr<RowsDigest> StoreHolder::Digest(const std::string& session_id, absl::Time deadline) {
  return store_.DigestRows(session_id, deadline);
}

absl::StatusOr<std::unique_ptr<ShardImport>> StoreHolder::Import(const HeldShard& shard) {
  ATTIC_ASSIGN_OR_RETURN(auto sink, store_.ImportSession({.session_id = shard.session_id,
                                                          .durability = shard.durability}));
  return std::make_unique<StoreImport>(std::move(sink));
}

absl::Status StoreHolder::Append(const AppendBatch& batch, absl::Time deadline) {
  return store_.Append(batch, deadline).status();
}

absl::Status StoreHolder::Truncate(const std::string& session_id, int64_t position) {
  return store_.TruncateSession(session_id, position).status();
}

absl::Status StoreHolder::Close(const std::string& session_id) {
  return store_.CloseSession(session_id);
}

}  // namespace attic
