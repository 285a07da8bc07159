// Membership through etcd.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_MEMBERSHIP_H_
#define ATTIC_SERVER_CLUSTER_ETCD_MEMBERSHIP_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/etcd/etcd_types.h"
#include "server/cluster/membership.h"
#include "server/cluster/placement/next_map.h"

namespace attic {

struct EtcdMembershipOptions {
  std::string cluster;
  Member node;  // this one, as it is to be registered
  EtcdOptions etcd;
  // How soon a node is found out whose host vanished. etcd's least is 2 s.
  absl::Duration lease = absl::Seconds(5);
  PlacementOptions placement;  // should be the same in all nodes: the elected one's count
  size_t initial_nodes = 1;    // the first map of a cluster is made when so many are there
  // The newest map that a process of this node knew before, if any. It is known only once etcd was
  // seen to have none: it may be of a cluster that had the same name once.
  ClusterMapPtr saved_map;
  // Called with newer maps, not more often than once a second, by one thread; may take its time.
  // After an error it is called again. May be null.
  std::function<absl::Status(const ClusterMap&)> save_map;
  // Nodes are found out at once whose address refuses connections (accuser.h). Addresses must be
  // the nodes' own: nothing may listen for them, or refuse for them, in between.
  bool probe = true;
};

// Registers this node under a lease, watches the cluster's keys, stands for controller, and while
// elected makes the maps (controller.h). While etcd is away the last map stays; then, and when
// somebody knows a newer map than this node, it asks the other nodes for theirs.
class EtcdMembership : public Membership {
 public:
  // Does not wait for etcd: the node is registered when etcd can be reached. INVALID_ARGUMENT names
  // the option.
  static absl::StatusOr<std::unique_ptr<EtcdMembership>> Start(
      const EtcdMembershipOptions& options);

  // A sender knows a map of `epoch`. Does not wait. Thread-safe.
  virtual void WantNewer(uint64_t epoch) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_MEMBERSHIP_H_
