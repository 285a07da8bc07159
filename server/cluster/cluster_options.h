// What makes a store a node of a cluster.
#ifndef ATTIC_SERVER_CLUSTER_CLUSTER_OPTIONS_H_
#define ATTIC_SERVER_CLUSTER_CLUSTER_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cluster/membership.h"
#include "server/cluster/repair_progress.h"

namespace attic {

class SessionStore;

// Of the process that joins.
struct NodeIdentity {
  std::string boot_id;
  std::string bound_address;  // host:port as it listens, with the port really bound
};

// What keeps a node's slots filled, on threads of its own; stops when it goes. Thread-safe.
class NodeRepair {
 public:
  virtual ~NodeRepair() = default;
  // Does not wait.
  virtual RepairProgress progress() const = 0;

  // An append or a read found that a shard is missing here, lags, or holds something else:
  // NOT_FOUND, OUT_OF_RANGE, FAILED_PRECONDITION, ALREADY_EXISTS. Does not wait.
  virtual void NotifyGap(const std::string& /*session_id*/) {}
  // Whoever truncates or closes shards for a caller, also such that are not here, holds the result
  // meanwhile: repair gives up what it was doing with them, and does not bring back what is being
  // removed from the other replicas, too. Waits for a step of repair on one of them. Must not
  // outlive this.
  virtual std::shared_ptr<void> Changing(std::vector<std::string> /*session_ids*/) {
    return nullptr;
  }
};

struct ClusterOptions {
  // Called once, when the port is bound: requests that come before it returned are UNAVAILABLE. An
  // error ends the start of the store. Null: the store is no node of a cluster.
  std::function<absl::StatusOr<std::shared_ptr<Membership>>(const NodeIdentity& identity)> join;
  // A sender knows a map of `epoch`, which the node does not know yet. Called by any thread, as
  // often as that happens; does not wait. May be null.
  std::function<void(uint64_t epoch)> want_newer_map;
  // Called once, after join. The store and the membership outlive what it returns. May be null.
  std::function<absl::StatusOr<std::unique_ptr<NodeRepair>>(SessionStore& store,
                                                            std::shared_ptr<Membership> membership)>
      start_repair;
  size_t call_threads = 8;      // for ShardService.Call, whose calls mostly wait for the disk
  size_t transfer_threads = 2;  // for what other nodes read

  bool node_of_cluster() const { return join != nullptr; }
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_CLUSTER_OPTIONS_H_
