#include "server/cluster/repair/store_holder.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kListPage = 4096;

class StoreImport final : public ShardImport {
 public:
  explicit StoreImport(SessionStore& store) : store_(store) {}

  absl::Status Begin(const HeldShard& shard) {
    ATTIC_ASSIGN_OR_RETURN(sink_, store_.ImportSession({.session_id = shard.session_id,
                                                        .durability = shard.durability},
                                                       [this](const OpenSessionRequest& request) {
                                                         request_ = request;
                                                         return absl::OkStatus();
                                                       }));
    return absl::OkStatus();
  }
  absl::Status Write(std::string_view bytes) override { return sink_->Write(bytes); }
  absl::Status Finish() override { return sink_->Finish().status(); }
  absl::Status OpenEmpty() override {
    sink_ = nullptr;  // with the room it takes
    if (!request_.has_value()) {
      return absl::FailedPreconditionError("snapshot: does not say of which session it is");
    }
    ATTIC_ASSIGN_OR_RETURN(const SessionDescription opened, store_.OpenSession(*request_));
    if (opened.created) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat("session_id: ", opened.session_id, " is taken"));
  }

 private:
  SessionStore& store_;
  std::unique_ptr<SnapshotSink> sink_;
  std::optional<OpenSessionRequest> request_;  // what the snapshot says, once it came
};

absl::Status CheckRecovered(SessionStore& store) {
  const uint64_t count = store.Status().recovering_sessions;
  if (count == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("repair: ", count, " sessions are still read from disk"));
}

}  // namespace

HeldShard ToHeldShard(const PlacedSession& session) {
  return {.session_id = session.session_id,
          .slot = session.slot,
          .replicas = session.replicas,
          .watermark = session.watermark,
          .durability = session.durable ? Durability::kDurable : Durability::kMemory};
}

absl::StatusOr<std::vector<HeldShard>> StoreHolder::List() {
  ATTIC_RETURN_IF_ERROR(CheckRecovered(store_));
  std::vector<HeldShard> shards;
  std::string after;
  for (;;) {
    const std::vector<PlacedSession> page = store_.ListPlaced(after, kListPage, {});
    for (const PlacedSession& session : page) shards.push_back(ToHeldShard(session));
    if (page.size() < kListPage) return shards;
    after = page.back().session_id;
  }
}

absl::StatusOr<HeldShard> StoreHolder::Describe(const std::string& session_id) {
  ATTIC_RETURN_IF_ERROR(CheckRecovered(store_));
  ATTIC_ASSIGN_OR_RETURN(const PlacedSession session, FindPlaced(store_, session_id));
  return ToHeldShard(session);
}

absl::StatusOr<RowsDigest> StoreHolder::Digest(const std::string& session_id, absl::Time deadline) {
  return store_.DigestRows(session_id, deadline);
}

absl::StatusOr<std::unique_ptr<ShardImport>> StoreHolder::Import(const HeldShard& shard) {
  auto import = std::make_unique<StoreImport>(store_);
  ATTIC_RETURN_IF_ERROR(import->Begin(shard));
  return import;
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
