// One controller in each node, of which etcd elects one: it alone changes the map.
#ifndef ATTIC_SERVER_CLUSTER_CONTROLLER_H_
#define ATTIC_SERVER_CLUSTER_CONTROLLER_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
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
  // Before the first map of a cluster is made: it may be one whose etcd lost its data, and the
  // nodes that know its map register within about this time.
  absl::Duration first_map_wait = absl::Seconds(3);
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
  // Asks the nodes at these addresses for maps newer than an epoch. Returns the newest; null: none.
  using NewestOf = std::function<ClusterMapPtr(std::span<const std::string>, uint64_t)>;

  // `newest_of` is called before a map is put where etcd had none, or an older one. `client` must
  // outlive the controller.
  Controller(EtcdClient& client, const ControllerOptions& options, NewestOf newest_of)
      : client_(client),
        options_(options),
        keys_(options.cluster),
        newest_of_(std::move(newest_of)) {}

  // Stands for election where nobody is elected, and as the elected one changes the map where it
  // has to be. Who knows an older map than another member, and cannot get that, is not to decide:
  // it does not stand for election, and ends its own. Nothing is decided by what was read: each
  // change is a transaction that fails if another node was elected, or the map changed, since
  // `input` was observed. Errors of etcd are left to the next step.
  ControllerStep Step(const ControllerInput& input);

  // Of the last step. Thread-safe.
  bool controlling() const { return controlling_; }

 private:
  bool Elected(const ControllerInput& input) const;
  void StandForElection(int64_t lease);
  void EndElection(const ObservedController& controller);
  ClusterView View(const ControllerInput& input, const ClusterMap& base);
  // What the next map is made from, null where there is none: the newest map this node knows, or
  // can get when it is elected. etcd may have lost the map, or have an older one from a copy.
  ClusterMapPtr Base(const ControllerInput& input) const;
  // Null where there can be no next map yet.
  std::shared_ptr<ClusterMap> Next(const ControllerInput& input, ClusterMapPtr base);
  ControllerStep PutMap(const ControllerInput& input, ClusterMapPtr map);

  EtcdClient& client_;
  const ControllerOptions options_;
  const ClusterKeys keys_;
  const NewestOf newest_of_;
  std::map<std::string, absl::Time> down_since_;
  std::atomic<bool> controlling_ = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_CONTROLLER_H_
