// How a node learns what its cluster is, and says what it is itself.
#ifndef ATTIC_SERVER_CLUSTER_MEMBERSHIP_H_
#define ATTIC_SERVER_CLUSTER_MEMBERSHIP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "api/cluster_map.h"

namespace attic {

using ClusterMapPtr = std::shared_ptr<const ClusterMap>;
// 0 where there is no map.
inline uint64_t EpochOf(const ClusterMapPtr& map) { return map == nullptr ? 0 : map->epoch; }

// What a node says it has filled.
struct SyncReport {
  uint64_t epoch = 0;           // of the map that was filled
  bool node_synced = false;     // everything that the node is a replica of is held
  std::vector<uint32_t> slots;  // incoming ones that are held

  bool operator==(const SyncReport&) const = default;
};

// What came of the calls to etcd that a node makes all the time.
struct EtcdCalls {
  bool connected = false;     // the keys are watched, and the last call about the lease succeeded
  uint64_t failures = 0;      // calls, since the process started
  uint64_t lease_losses = 0;  // times the node's lease ended, since then
  uint64_t accusations = 0;   // registrations of processes that were gone, deleted by this node
  uint64_t returns = 0;       // times this node's registration was deleted though its lease went on

  bool operator==(const EtcdCalls&) const = default;
};

// Thread-safe. Maps only get newer: epochs never go back.
class Membership {
 public:
  virtual ~Membership() = default;

  // This node's id in the map.
  virtual const std::string& node_id() const = 0;
  // The newest map known; null before the first one.
  virtual ClusterMapPtr map() const = 0;
  // Returns as soon as a map newer than `epoch` is known; null at `deadline`, and at once after
  // Stop.
  virtual ClusterMapPtr WaitForNewer(uint64_t epoch, absl::Time deadline) = 0;
  // A map that was seen elsewhere; taken when it is newer, and of this cluster. Nodes cut off from
  // etcd learn by it what the others know.
  virtual void Offer(const ClusterMapPtr& map) = 0;

  // Says what this node holds. The last report counts; a report of another epoch than the
  // controller's has no effect. Does not wait.
  virtual void Report(const SyncReport& report) = 0;
  // Whether this node is the elected controller.
  virtual bool controlling() const = 0;
  // Nothing where membership does not come from etcd. Does not wait.
  virtual std::optional<EtcdCalls> etcd_calls() const { return std::nullopt; }

  // What an operator asks of a node. NOT_FOUND when there is no such node; FAILED_PRECONDITION
  // where membership does not change; UNAVAILABLE, DEADLINE_EXCEEDED.
  virtual absl::Status Change(const std::string& node_id, NodeChange change,
                              absl::Time deadline) = 0;
  virtual absl::Status Rebalance(absl::Time deadline) = 0;

  // The node goes away: the others need not find out by themselves. Returns when the map says so,
  // or at `deadline`.
  virtual void Leave(absl::Time deadline) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_MEMBERSHIP_H_
