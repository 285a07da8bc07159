#include "client/cpp/cluster/shard_snapshots.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "api/shard.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/cluster_snapshot_format.h"
#include "client/cpp/cluster/read_candidates.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr absl::Duration kBackoff = absl::Milliseconds(100);

void WaitForMap(ClusterCore& core, const ClusterMap& map, absl::Time until) {
  core.directory.Refresh();
  core.directory.WaitForNewer(map.epoch, std::min(until, absl::Now() + kBackoff));
}

// Whether another replica, or a later try, may answer otherwise.
bool MayPass(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status);
}

}  // namespace

Placement PlacementOf(const SessionInfo& info, const ShardId& shard, const ClusterMap& map) {
  const auto slots = static_cast<uint32_t>(map.slots.size());
  return {.slot = SlotOfShard(info.placement_key, shard, slots),
          .key = info.placement_key,
          .replication = info.replication,
          .kv_head = shard.kv_head,
          .block = shard.block};
}

ShardTarget TargetOf(ClusterCore& core, const SessionInfo& info, const ShardId& shard,
                     v1::ShardCall call) {
  const uint32_t slot = PlacementOf(info, shard, *core.directory.map()).slot;
  return {.slot = slot, .call = std::move(call)};
}

void CloseShards(ClusterCore& core, const SessionInfo& info, std::span<const SnapshotShard> shards,
                 absl::Time deadline) {
  std::vector<ShardTarget> targets;
  for (const SnapshotShard& one : shards) {
    v1::ShardCall call;
    call.mutable_close()->set_session_id(ShardSessionId(info.session_id, one.shard));
    targets.push_back(TargetOf(core, info, one.shard, std::move(call)));
  }
  CallReplicas(core, targets, info.replication.replicas, Audience::kEveryReplica,
               /*prefix_hashes=*/"", deadline);
}

v1::SnapshotChunk FirstChunk(const SessionInfo& info, const ShardId& shard, const ClusterMap& map) {
  v1::SnapshotChunk chunk;
  wire::ToWire(ImportOptions{.session_id = ShardSessionId(info.session_id, shard),
                             .durability = info.durability,
                             .epoch = map.epoch,
                             .placement = PlacementOf(info, shard, map)},
               chunk);
  return chunk;
}

absl::Status CheckImported(const SessionInfo& info, const SnapshotShard& shard,
                           const Placement& placement, const v1::SessionDescription& made) {
  const absl::StatusOr<SessionDescription> session = wire::FromWire(made);
  ATTIC_RETURN_IF_ERROR(session.status());
  const bool same =
      session->session_id == ShardSessionId(info.session_id, shard.shard) &&
      session->fingerprint == ShardFingerprint(info.fingerprint) && session->layers.size() == 1 &&
      session->layers.front().layer == shard.shard.layer && session->watermark >= shard.positions &&
      session->tenant == info.tenant && session->ttl_seconds == info.ttl_seconds;
  if (!same) {
    return absl::DataLossError(
        absl::StrCat("snapshot of a cluster: ", ShardSessionId(info.session_id, shard.shard),
                     " is not what its session says"));
  }
  if (session->placement != placement) {
    return absl::FailedPreconditionError(
        "placement: a node is of a release that imports no shards of another placement");
  }
  return absl::OkStatus();
}

ShardDelivery::ShardDelivery(ClusterCore& core, const SessionInfo& info, const SnapshotShard& shard,
                             absl::Time deadline)
    : core_(core),
      info_(info),
      shard_(shard),
      deadline_(deadline),
      give_up_(absl::Now() + core.options.call_timeout) {
  Open();
}

void ShardDelivery::Open() {
  map_ = core_.directory.map();
  replicas_.clear();
  begun_ = false;
  const Placement placement = PlacementOf(info_, shard_.shard, *map_);
  const SlotRoute route = RouteOf(*map_, placement.slot, info_.replication.replicas);
  const auto add = [&](uint32_t index, bool incoming) {
    const std::shared_ptr<PooledNode> node = core_.Node(*map_, index);
    replicas_.push_back({.node = node,
                         .import = node->link->OpenImport(deadline_),
                         .placement = placement,
                         .incoming = incoming});
  };
  for (const uint32_t node : route.writers) add(node, false);
  // Whoever joins gets what it missed when the import is settled.
  for (const uint32_t node : route.joining) add(node, true);
  for (const uint32_t node : route.incoming) add(node, true);
}

void ShardDelivery::Drop(Replica& replica, const absl::Status& why) {
  replica.import.reset();
  if (failed_.ok() && !replica.incoming) failed_ = why;
}

bool ShardDelivery::AnyLeft() const {
  return std::any_of(replicas_.begin(), replicas_.end(), [](const Replica& replica) {
    return replica.import != nullptr && !replica.incoming;
  });
}

void ShardDelivery::Send(std::string_view bytes) {
  for (Replica& replica : replicas_) {
    if (replica.import == nullptr) continue;
    v1::SnapshotChunk chunk;
    if (!begun_) chunk = FirstChunk(info_, shard_.shard, *map_);
    chunk.set_data(bytes.data(), bytes.size());
    const absl::Status sent = replica.import->Write(std::move(chunk));
    if (!sent.ok()) Drop(replica, sent);
  }
  begun_ = true;
}

absl::Status ShardDelivery::Write(std::string_view bytes) {
  if (replayable_ && replay_.size() + bytes.size() <= kReplayBytesMax) {
    replay_.append(bytes);
  } else {
    replayable_ = false;
    replay_ = std::string();
  }
  Send(bytes);
  return AnyLeft() ? absl::OkStatus() : StartAgain();
}

absl::Status ShardDelivery::StartAgain() {
  do {
    if (failed_.ok()) failed_ = absl::UnavailableError("no replica of a shard is there");
    // That it is there: a node took it, and its answer was lost.
    const bool may_pass = MayPass(failed_) || absl::IsAlreadyExists(failed_);
    if (!replayable_ || !may_pass || absl::Now() >= std::min(give_up_, deadline_)) return failed_;
    replicas_.clear();
    WaitForMap(core_, *map_, deadline_);
    CloseShards(core_, info_, {&shard_, 1}, std::min(give_up_, deadline_));
    Open();
    failed_ = absl::OkStatus();
    constexpr size_t kPiece = kClusterFramePayloadMax;
    for (size_t at = 0; at < replay_.size() && AnyLeft(); at += kPiece) {
      Send(std::string_view(replay_).substr(at, kPiece));
    }
  } while (!AnyLeft());
  return absl::OkStatus();
}

void ShardDelivery::Complete() {
  for (Replica& replica : replicas_) {
    if (replica.import != nullptr) replica.import->WritesDone();
  }
  for (Replica& replica : replicas_) {
    if (replica.import == nullptr) continue;
    const absl::StatusOr<v1::SessionDescription> made = replica.import->Finish();
    const absl::Status status =
        made.ok() ? CheckImported(info_, shard_, replica.placement, *made) : made.status();
    Drop(replica, status);
    if (status.ok() && !replica.incoming) ++holders_;
  }
}

absl::Status ShardDelivery::Finish() {
  for (;;) {
    Complete();
    // What a node finds wrong with the file is wrong for all of them.
    if (!failed_.ok() && !MayPass(failed_) && !absl::IsAlreadyExists(failed_)) return failed_;
    if (holders_ > 0) return absl::OkStatus();
    ATTIC_RETURN_IF_ERROR(StartAgain());
  }
}

absl::Status ShardExport::Read(const ClusterMap& map, uint32_t node, const Sink& sink) {
  progress_ = false;
  const auto checked = [this](const absl::Status& status) {
    sink_failed_ = sink_failed_ || !status.ok();
    return status;
  };
  v1::ExportRequest request;
  request.set_session_id(ShardSessionId(info_.session_id, shard_.shard));
  wire::ToWire(ExportOptions{.position = shard_.positions, .epoch = map.epoch}, request);
  const std::shared_ptr<PooledNode> pooled = core_.Node(map, node);
  bool begun = false;
  const absl::Status status =
      pooled->link->Export(request, deadline_, [&](const v1::SnapshotChunk& chunk) -> absl::Status {
        if (!begun) ATTIC_RETURN_IF_ERROR(checked(sink.begin()));
        begun = true;
        progress_ = true;
        return checked(sink.take(chunk.data()));
      });
  // What a shard takes says nothing of what an answer takes: only failures are noted.
  if (!sink_failed_ && (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status))) {
    pooled->load->Finished(0, absl::ZeroDuration(), NodeLoad::Outcome::kFailed, absl::Now());
  }
  if (status.ok() && !begun) return absl::UnavailableError("the node sent nothing of a shard");
  return status;
}

absl::Status ShardExport::Run(const Sink& sink) {
  std::set<std::string> asked;
  absl::Status last = absl::UnavailableError("no live replica of a shard is there");
  bool may_pass = true;
  absl::Time progress = absl::Now();
  for (int attempts = 0;;) {
    const std::shared_ptr<const ClusterMap> map = core_.directory.map();
    const uint32_t slot = PlacementOf(info_, shard_.shard, *map).slot;
    const SlotRoute route = RouteOf(*map, slot, info_.replication.replicas);
    const std::optional<uint32_t> node =
        ChooseReader(core_, *map, route.readers, asked, {}, absl::Now());
    if (node.has_value()) {
      if (asked.empty()) may_pass = false;
      asked.insert(map->nodes[*node].id);
      last = Read(*map, *node, sink);
      if (last.ok() || sink_failed_) return last;
      may_pass = may_pass || MayPass(last);
      if (progress_) progress = absl::Now();
      if (progress_ && ++attempts >= kAttemptsMax) return last;
      continue;
    }
    const absl::Time now = absl::Now();
    if (!may_pass || now >= std::min(deadline_, progress + core_.options.call_timeout)) return last;
    asked.clear();
    WaitForMap(core_, *map, deadline_);
  }
}

absl::Status CopyShard(ClusterCore& core, const SessionInfo& info, const SnapshotShard& shard,
                       const std::string& from_node, const std::string& to_node,
                       absl::Time deadline) {
  const std::shared_ptr<const ClusterMap> map = core.directory.map();
  const int64_t from = map->FindNode(from_node), to = map->FindNode(to_node);
  if (from < 0 || to < 0) return absl::UnavailableError("a node is not in the cluster any more");
  const std::shared_ptr<PooledNode> source = core.Node(*map, static_cast<uint32_t>(from));
  const std::shared_ptr<PooledNode> target = core.Node(*map, static_cast<uint32_t>(to));
  v1::ExportRequest request;
  request.set_session_id(ShardSessionId(info.session_id, shard.shard));
  wire::ToWire(ExportOptions{.position = std::nullopt, .epoch = map->epoch}, request);
  const std::unique_ptr<LinkImport> import = target->link->OpenImport(deadline);
  bool begun = false;
  ATTIC_RETURN_IF_ERROR(
      source->link->Export(request, deadline, [&](const v1::SnapshotChunk& chunk) {
        v1::SnapshotChunk out;
        if (!begun) out = FirstChunk(info, shard.shard, *map);
        begun = true;
        out.set_data(chunk.data());
        return import->Write(std::move(out));
      }));
  import->WritesDone();
  ATTIC_ASSIGN_OR_RETURN(const v1::SessionDescription made, import->Finish());
  return CheckImported(info, shard, PlacementOf(info, shard.shard, *map), made);
}

}  // namespace attic
