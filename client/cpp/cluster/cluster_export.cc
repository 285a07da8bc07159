#include "client/cpp/cluster/cluster_export.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/cluster_snapshot_file.h"
#include "client/cpp/cluster/shard_snapshots.h"
#include "client/cpp/cluster/snapshot_layout.h"

namespace attic {
namespace {

uint64_t RandomIdentity() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

absl::Status CheckNotCut(const SessionDescription& before, const SessionDescription& after) {
  const auto less = [](const LayerDescription& a, const LayerDescription& b) {
    return a.layer != b.layer || a.watermark > b.watermark;
  };
  const bool cut = before.layers.size() != after.layers.size() ||
                   !std::equal(before.layers.begin(), before.layers.end(), after.layers.begin(),
                               [&](const auto& a, const auto& b) { return !less(a, b); });
  if (!cut) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat("session_id: ", before.session_id, " was truncated while it was exported"));
}

}  // namespace

absl::Status ExportCluster(ClusterCore& core, ClusterSessions& sessions,
                           const std::string& session_id, absl::Time deadline,
                           const SnapshotWrite& write) {
  const auto soon = [&] { return std::min(deadline, core.CallDeadline()); };
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription session, sessions.Describe(session_id, soon()));
  ATTIC_ASSIGN_OR_RETURN(const SessionInfo info, SessionInfoOf(session));
  ATTIC_ASSIGN_OR_RETURN(SnapshotLayout layout,
                         SnapshotLayout::Make(info, session, core.options.limits));
  ClusterSnapshotWriter writer(RandomIdentity());
  const uint64_t bytes_estimated = session.memory_bytes + session.evicted_bytes;
  const auto put = [&](const std::string& bytes) { return write(bytes, bytes_estimated); };
  ATTIC_RETURN_IF_ERROR(put(writer.Begin(session)));
  for (; !layout.AtEnd(); layout.Next()) {
    const SnapshotShard shard = layout.Get();
    const ShardExport::Sink sink{
        .begin = [&] { return put(writer.StartShard(shard.shard)); },
        .take =
            [&](std::string_view bytes) {
              for (; !bytes.empty();
                   bytes.remove_prefix(std::min(bytes.size(), kClusterFramePayloadMax))) {
                ATTIC_RETURN_IF_ERROR(put(writer.Bytes(bytes.substr(0, kClusterFramePayloadMax))));
              }
              return absl::OkStatus();
            }};
    ATTIC_RETURN_IF_ERROR(ShardExport(core, info, shard, deadline).Run(sink));
    ATTIC_RETURN_IF_ERROR(put(writer.EndShard()));
  }
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription after, sessions.Describe(session_id, soon()));
  ATTIC_RETURN_IF_ERROR(CheckNotCut(session, after));
  return put(writer.End());
}

}  // namespace attic
