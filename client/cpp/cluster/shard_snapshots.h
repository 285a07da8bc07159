// Snapshots of one shard: read from a replica, written to all of them, copied from one to another.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_SHARD_SNAPSHOTS_H_
#define ATTIC_CLIENT_CPP_CLUSTER_SHARD_SNAPSHOTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_routes.h"
#include "client/cpp/cluster/node_link.h"
#include "client/cpp/cluster/replica_calls.h"
#include "client/cpp/cluster/snapshot_layout.h"

namespace attic {

// The placement of a shard in this map.
Placement PlacementOf(const SessionInfo& info, const ShardId& shard, const ClusterMap& map);
// A call on a shard.
ShardTarget TargetOf(ClusterCore& core, const SessionInfo& info, const ShardId& shard,
                     v1::ShardCall call);
// Closes shards, whoever holds some of them; errors are of no consequence.
void CloseShards(ClusterCore& core, const SessionInfo& info, std::span<const SnapshotShard> shards,
                 absl::Time deadline);

// What the first chunk of a shard's import says.
v1::SnapshotChunk FirstChunk(const SessionInfo& info, const ShardId& shard, const ClusterMap& map);
// DATA_LOSS unless the node made the shard that the session wants.
absl::Status CheckImported(const SessionInfo& info, const SnapshotShard& shard,
                           const Placement& placement, const v1::SessionDescription& made);

// One shard on its way to every node that is to hold it. Not thread-safe.
class ShardDelivery {
 public:
  // As long as no more than this was written it can be sent again, when no node took it.
  static constexpr size_t kReplayBytesMax = 8u << 20;

  ShardDelivery(ClusterCore& core, const SessionInfo& info, const SnapshotShard& shard,
                absl::Time deadline);

  // The error of a replica when none is left. Those that fail while another goes on are left out.
  absl::Status Write(std::string_view bytes);
  // OK when at least one replica holds the shard.
  absl::Status Finish();

 private:
  struct Replica {
    std::shared_ptr<PooledNode> node;
    std::unique_ptr<LinkImport> import;  // null when it failed
    Placement placement;
    bool incoming = false;
  };

  void Open();
  void Send(std::string_view bytes);
  void Drop(Replica& replica, const absl::Status& why);
  bool AnyLeft() const;
  // Sends what was written to replicas of a newer map; the error when that cannot be.
  absl::Status StartAgain();
  void Complete();

  ClusterCore& core_;
  const SessionInfo& info_;
  const SnapshotShard shard_;
  const absl::Time deadline_;
  std::shared_ptr<const ClusterMap> map_;
  std::vector<Replica> replicas_;
  bool begun_ = false;   // the first chunk went out
  size_t holders_ = 0;   // replicas that took all
  absl::Status failed_;  // of the replica that failed first
  absl::Time give_up_;   // when none takes it
  bool replayable_ = true;
  std::string replay_;
};

// Where a shard is read from, replica after replica.
class ShardExport {
 public:
  // A shard is begun anew at most so often.
  static constexpr int kAttemptsMax = 16;

  // begin() is called whenever the shard begins, or begins anew, and take(bytes) with what comes
  // then. Their errors end the export.
  struct Sink {
    std::function<absl::Status()> begin;
    std::function<absl::Status(std::string_view bytes)> take;
  };

  ShardExport(ClusterCore& core, const SessionInfo& info, const SnapshotShard& shard,
              absl::Time deadline)
      : core_(core), info_(info), shard_(shard), deadline_(deadline) {}

  // Positions [0, shard.positions). NOT_FOUND or OUT_OF_RANGE when every live replica says so;
  // UNAVAILABLE when none answers for call_timeout.
  absl::Status Run(const Sink& sink);

 private:
  absl::Status Read(const ClusterMap& map, uint32_t node, const Sink& sink);

  ClusterCore& core_;
  const SessionInfo& info_;
  const SnapshotShard shard_;
  const absl::Time deadline_;
  bool sink_failed_ = false;
  bool progress_ = false;  // of the latest attempt
};

// A shard that the first node holds to one that lacks it, through this process.
absl::Status CopyShard(ClusterCore& core, const SessionInfo& info, const SnapshotShard& shard,
                       const std::string& from_node, const std::string& to_node,
                       absl::Time deadline);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_SHARD_SNAPSHOTS_H_
