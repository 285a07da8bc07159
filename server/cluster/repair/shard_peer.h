// What repair asks of another node of the cluster.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_SHARD_PEER_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_SHARD_PEER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "api/types.h"
#include "server/session/shard_view.h"

namespace attic {

// A shard or manifest that a node holds.
struct HeldShard {
  std::string session_id;
  uint32_t slot = 0;
  uint32_t replicas = 0;  // 0: as the cluster says
  int64_t watermark = 0;
  Durability durability = Durability::kMemory;

  bool operator==(const HeldShard&) const = default;
};

struct PeerInventory {
  std::vector<HeldShard> shards;
  std::string boot_id;  // of the process that answered; empty where it is not said
};

// Thread-safe. A peer that does not answer is given up at the deadline, with DEADLINE_EXCEEDED; one
// that is away is UNAVAILABLE. An error of a sink ends the call and is returned.
class ShardPeer {
 public:
  virtual ~ShardPeer() = default;

  // All that the peer holds of `slots`, as soon as it knows a map of `epoch` or later and has
  // applied what it let in by earlier ones: UNAVAILABLE before.
  virtual absl::StatusOr<PeerInventory> Inventory(std::span<const uint32_t> slots, uint64_t epoch,
                                                  absl::Time deadline) = 0;
  // The same of these shards, whatever their slots; those that the peer does not hold are missing.
  virtual absl::StatusOr<PeerInventory> Find(std::span<const std::string> session_ids,
                                             uint64_t epoch, absl::Time deadline) = 0;
  // NOT_FOUND when the peer does not hold the shard; so for the calls below.
  virtual absl::StatusOr<RowsDigest> Digest(const std::string& session_id, absl::Time deadline) = 0;
  // Rows [begin, end), in order, in batches that may be appended. OUT_OF_RANGE beyond the
  // watermark; DEADLINE_EXCEEDED when nothing comes for `idle_timeout`; the time that `sink` takes
  // does not count.
  using RowsSink = std::function<absl::Status(const AppendBatch& batch)>;
  virtual absl::Status ReadRows(const std::string& session_id, int64_t begin, int64_t end,
                                absl::Duration idle_timeout, const RowsSink& sink) = 0;
  // The bytes of a snapshot. DEADLINE_EXCEEDED as above.
  using BytesSink = std::function<absl::Status(std::string_view bytes)>;
  virtual absl::Status Export(const std::string& session_id, absl::Duration idle_timeout,
                              const BytesSink& sink) = 0;
};

// Makes or finds the peer of a node. Called by one thread at a time.
using ShardPeerFactory = std::function<std::shared_ptr<ShardPeer>(const ClusterNode& node)>;

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_SHARD_PEER_H_
