#include "client/cpp/cluster/cluster_import.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/cluster_snapshot_file.h"
#include "client/cpp/cluster/shard_settlement.h"
#include "client/cpp/cluster/shard_snapshots.h"
#include "client/cpp/cluster/snapshot_layout.h"

namespace attic {
namespace {

class ClusterImport final : public ClusterSnapshotVisitor {
 public:
  ClusterImport(ClusterCore& core, ClusterSessions& sessions, const ImportOptions& options,
                absl::Time deadline)
      : core_(core), sessions_(sessions), options_(options), deadline_(deadline) {}

  absl::StatusOr<SessionDescription> Run(const SnapshotRead& read) {
    absl::StatusOr<SessionDescription> made = Import(read);
    if (!made.ok() && opened_) Undo();
    return made;
  }

  absl::Status OnSession(const SessionDescription& session) override;
  absl::Status OnShard(const ShardId& shard) override;
  absl::Status OnBytes(std::string_view bytes) override;
  absl::Status OnShardEnd() override;

 private:
  absl::StatusOr<SessionDescription> Import(const SnapshotRead& read);
  absl::Time Soon() const { return std::min(deadline_, core_.CallDeadline()); }
  size_t BatchMax() const { return core_.options.limits.shard_calls_max; }
  // A lease would end during a long import.
  void Renew();
  void Undo();

  ClusterCore& core_;
  ClusterSessions& sessions_;
  const ImportOptions& options_;
  const absl::Time deadline_;
  SessionInfo info_;
  bool opened_ = false;
  std::optional<SnapshotLayout> first_;  // at the first shard
  std::optional<SnapshotLayout> next_;   // at the shard that is to come, or is coming
  std::optional<ShardDelivery> shard_;
  absl::Time renewed_;
};

absl::Status ClusterImport::OnSession(const SessionDescription& session) {
  absl::StatusOr<SessionInfo> info = SessionInfoOf(session);
  if (!info.ok()) return absl::DataLossError(info.status().message());
  info_ = *std::move(info);
  ATTIC_ASSIGN_OR_RETURN(first_, SnapshotLayout::Make(info_, session, core_.options.limits));
  next_ = first_;
  if (!options_.session_id.empty() && options_.session_id != info_.session_id) {
    // What is placed by its own id goes with it; what is placed with others stays with them.
    if (info_.placement_key == info_.session_id) info_.placement_key = options_.session_id;
    info_.session_id = options_.session_id;
  }
  info_.durability = options_.durability;
  if (options_.replicas > 0) info_.replication.replicas = options_.replicas;
  ATTIC_RETURN_IF_ERROR(sessions_.OpenEmpty(info_, Soon()));
  opened_ = true;
  renewed_ = absl::Now();
  // The id was free: shards of it were left behind by somebody who failed.
  SnapshotLayout rest = *first_;
  while (!rest.AtEnd()) CloseShards(core_, info_, rest.Take(BatchMax()), Soon());
  return absl::OkStatus();
}

absl::Status ClusterImport::OnShard(const ShardId& shard) {
  if (next_->AtEnd() || next_->Get().shard != shard) {
    return absl::DataLossError("snapshot of a cluster: a shard is missing, or is one too many");
  }
  shard_.reset();
  shard_.emplace(core_, info_, next_->Get(), deadline_);
  return absl::OkStatus();
}

absl::Status ClusterImport::OnBytes(std::string_view bytes) {
  Renew();
  return shard_->Write(bytes);
}

absl::Status ClusterImport::OnShardEnd() {
  ATTIC_RETURN_IF_ERROR(shard_->Finish());
  shard_.reset();
  next_->Next();
  return absl::OkStatus();
}

void ClusterImport::Renew() {
  const absl::Time now = absl::Now();
  if (info_.ttl_seconds == 0 || now - renewed_ < absl::Seconds(info_.ttl_seconds) / 3) return;
  renewed_ = now;
  SnapshotLayout done = *first_;
  while (done.index() < next_->index()) {
    const auto batch = std::min<uint64_t>(BatchMax(), next_->index() - done.index());
    std::vector<ShardTarget> targets;
    for (const SnapshotShard& one : done.Take(static_cast<size_t>(batch))) {
      v1::ShardCall call;
      call.mutable_renew_lease()->set_session_id(ShardSessionId(info_.session_id, one.shard));
      targets.push_back(TargetOf(core_, info_, one.shard, std::move(call)));
    }
    CallReplicas(core_, targets, info_.replication.replicas, Audience::kEveryReplica,
                 /*prefix_hashes=*/"", Soon());
  }
  sessions_.RenewManifest(info_, Soon()).IgnoreError();
}

// By its own time: the caller's may have run out.
void ClusterImport::Undo() {
  shard_.reset();
  const absl::Time until = core_.CallDeadline();
  SnapshotLayout begun = *first_;
  const uint64_t end = next_->index() + (next_->AtEnd() ? 0 : 1);
  while (begun.index() < end) {
    const auto batch = std::min<uint64_t>(BatchMax(), end - begun.index());
    CloseShards(core_, info_, begun.Take(static_cast<size_t>(batch)), until);
  }
  sessions_.Close(info_.session_id, core_.CallDeadline()).IgnoreError();
}

absl::StatusOr<SessionDescription> ClusterImport::Import(const SnapshotRead& read) {
  ClusterSnapshotReader reader(*this);
  for (;;) {
    if (absl::Now() >= deadline_) {
      return absl::DeadlineExceededError("the deadline passed in the middle of an import");
    }
    ATTIC_ASSIGN_OR_RETURN(const std::string bytes, read());
    if (bytes.empty()) break;
    ATTIC_RETURN_IF_ERROR(reader.Read(bytes));
  }
  ATTIC_RETURN_IF_ERROR(reader.Finish());
  if (!next_->AtEnd()) return absl::DataLossError("snapshot of a cluster: shards are missing");
  SnapshotLayout rest = *first_;
  while (!rest.AtEnd()) {
    ATTIC_RETURN_IF_ERROR(SettleShards(core_, info_, rest.Take(BatchMax()), deadline_));
  }
  ATTIC_ASSIGN_OR_RETURN(SessionDescription made, sessions_.Describe(info_.session_id, Soon()));
  made.created = true;
  return made;
}

}  // namespace

absl::StatusOr<SessionDescription> ImportCluster(ClusterCore& core, ClusterSessions& sessions,
                                                 const ImportOptions& options, absl::Time deadline,
                                                 const SnapshotRead& read) {
  if (options.replicas > kReplicasMax) {
    return absl::InvalidArgumentError(absl::StrCat("replicas: not between 1 and ", kReplicasMax));
  }
  return ClusterImport(core, sessions, options, deadline).Run(read);
}

}  // namespace attic
