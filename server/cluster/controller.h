// One controller in each node, of which etcd elects one: it alone changes the map.
#ifndef ATTIC_SERVER_CLUSTER_CONTROLLER_H_
#define ATTIC_SERVER_CLUSTER_CONTROLLER_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "server/cluster/etcd/etcd_client.h"
#include "server/cluster/membership.h"
#include "server/cluster/observed_cluster.h"
#include "server/cluster/placement/next_map.h"

namespace attic {

struct ControllerOptions {
  std::string cluster;
  std::string node_id;
  PlacementOptions placement;
  // The first map of a cluster is made when so many nodes are registered.
  size_t initial_nodes = 1;
  // Registrations may be missing for so long after etcd was away without meaning anything: they
  // come back one by one. But for those of processes that are known to have ended.
  absl::Duration grace = absl::Seconds(6);
};

// What a step starts from.
struct ControllerInput {
  ObservedCluster observed;
  ClusterMapPtr known;       // the newest map this node knows, from wherever
  int64_t lease = 0;         // this node's; 0: it has none
  absl::Time trusted_since;  // etcd was heard of without a break, and the lease held, since then
  absl::Time now;
  // Processes that are known to have ended: boot ids, by node id.
  std::map<std::string, std::string> gone;
};

// What became of it.
struct ControllerStep {
  bool controlling = false;
  ClusterMapPtr map;         // that was put into etcd by this step; null: none
  int64_t map_revision = 0;  // of that map in etcd
};

// Not thread-safe, but for controlling().
class Controller {
 public:
  // `newest_of_peers` asks the nodes of a map for theirs, and returns the newest, or null; called
  // before a map is put where etcd had none. `client` must outlive the controller.
  Controller(EtcdClient& client, const ControllerOptions& options,
             std::function<ClusterMapPtr(const ClusterMap&)> newest_of_peers)
      : client_(client),
        options_(options),
        keys_(options.cluster),
        newest_of_peers_(std::move(newest_of_peers)) {}

  // Stands for election where nobody is elected, and as the elected one changes the map where it
  // has to be. Nothing is decided by what was read: each change is a transaction that fails if
  // another node was elected, or the map changed, since `input` was observed. Errors of etcd are
  // left to the next step.
  ControllerStep Step(const ControllerInput& input);

  // Of the last step. Thread-safe.
  bool controlling() const { return controlling_; }

 private:
  bool Elected(const ControllerInput& input) const;
  void StandForElection(int64_t lease);
  void EndEarlierElection(const ObservedController& controller);
  ClusterView View(const ControllerInput& input, const ClusterMap& base);
  ControllerStep PutMap(const ControllerInput& input, ClusterMapPtr map);

  EtcdClient& client_;
  const ControllerOptions options_;
  const ClusterKeys keys_;
  const std::function<ClusterMapPtr(const ClusterMap&)> newest_of_peers_;
  std::map<std::string, absl::Time> down_since_;
  std::atomic<bool> controlling_ = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_CONTROLLER_H_
