// How far a node is with filling what it should hold.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_PROGRESS_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <string>

namespace attic {

struct RepairProgress {
  bool node_synced = false;   // the node holds all that it is a replica of
  uint64_t shards_left = 0;   // to be compared or filled, as far as is known
  uint64_t bytes_pulled = 0;  // this and the following since the process started
  uint64_t shards_pulled = 0;
  uint64_t shards_dropped = 0;
  uint64_t failures = 0;   // repairs of a shard that failed, and were or will be tried again
  std::string last_error;  // empty: none

  bool operator==(const RepairProgress&) const = default;
};

// Called by any thread; does not wait.
using RepairProgressSource = std::function<RepairProgress()>;

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_PROGRESS_H_
