// What a cluster's keys in etcd say: the only place that knows their names and contents.
#ifndef ATTIC_SERVER_CLUSTER_OBSERVED_CLUSTER_H_
#define ATTIC_SERVER_CLUSTER_OBSERVED_CLUSTER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "server/cluster/etcd/etcd_types.h"
#include "server/cluster/membership.h"
#include "server/cluster/placement/next_map.h"

namespace attic {

//   /attic/<cluster>/nodes/<id>    registration, under the node's lease
//   /attic/<cluster>/synced/<id>   the node's last report, under its lease
//   /attic/<cluster>/changes/<id>  "drain" or "remove", as an operator asked
//   /attic/<cluster>/controller    id of the elected node, under its lease
//   /attic/<cluster>/map           the map
//   /attic/<cluster>/rebalance     a number that counts up
class ClusterKeys {
 public:
  explicit ClusterKeys(const std::string& cluster) : prefix_("/attic/" + cluster + "/") {}

  const std::string& prefix() const { return prefix_; }
  std::string Node(const std::string& node_id) const { return prefix_ + "nodes/" + node_id; }
  std::string Synced(const std::string& node_id) const { return prefix_ + "synced/" + node_id; }
  std::string Change(const std::string& node_id) const { return prefix_ + "changes/" + node_id; }
  std::string Controller() const { return prefix_ + "controller"; }
  std::string Map() const { return prefix_ + "map"; }
  std::string Rebalance() const { return prefix_ + "rebalance"; }

 private:
  const std::string prefix_;
};

// Of the newest map a node knew when it registered, and of the one it had on disk when it started;
// 0: none.
struct KnownEpochs {
  uint64_t map = 0;
  uint64_t saved = 0;
};

// Values of keys.
std::string EncodeRegistration(const Member& member, bool leaving, const KnownEpochs& known);
std::string EncodeReport(const SyncReport& report, const std::string& boot_id);
std::string EncodeMap(const ClusterMap& map);
std::string EncodeChange(NodeChange change);  // of kDrain and kRemove

// The elected node.
struct ObservedController {
  std::string node_id;
  int64_t create_revision = 0;  // tells this election from earlier ones
  int64_t lease = 0;
};

// A registration in etcd, beside what it says.
struct ObservedRegistration {
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
  int64_t lease = 0;
  KnownEpochs known;
};

// The state of the keys as far as events told it. Values that make no sense count as absent. Not
// thread-safe; copies are cheap enough to be taken for every decision.
class ObservedCluster {
 public:
  explicit ObservedCluster(const std::string& cluster) : keys_(cluster) {}

  // Forgets everything but what a list says.
  void Reset(const EtcdEntries& entries);
  void Apply(const EtcdEvent& event);
  // As if an event had said so.
  void SetMap(ClusterMapPtr map, int64_t revision);

  const std::map<std::string, Member>& members() const { return members_; }
  // Of the same nodes.
  const std::map<std::string, ObservedRegistration>& registrations() const {
    return registrations_;
  }
  // The epoch of the newest map that a member says it has; 0: none. One on its disk counts only
  // while there is no map() in etcd: it may be of a cluster that had the same name once.
  uint64_t EpochOfMember(const std::string& node_id) const;
  // The largest of these. After etcd lost its data it is beyond that of map().
  uint64_t EpochOfMembers() const;
  // Nodes that are registered as about to go; none of members().
  const std::set<std::string>& leaving() const { return leaving_; }
  const std::optional<ObservedController>& controller() const { return controller_; }
  // Null when there is no such key; its mod_revision is 0 then.
  const ClusterMapPtr& map() const { return map_; }
  int64_t map_revision() const { return map_revision_; }

  // Everything but down_since, which whoever controls keeps.
  ClusterView View(absl::Time now) const;

 private:
  void Put(const EtcdKeyValue& entry);
  void Delete(const std::string& key);
  void PutNode(const std::string& node_id, const EtcdKeyValue& entry);

  const ClusterKeys keys_;
  std::map<std::string, Member> members_;  // without reports
  std::map<std::string, ObservedRegistration> registrations_;
  std::set<std::string> leaving_;
  struct Report {
    std::string boot_id;
    SyncReport report;
  };
  std::map<std::string, Report> reports_;
  std::set<std::string> draining_;
  std::set<std::string> removed_;
  uint64_t rebalance_ = 0;
  std::optional<ObservedController> controller_;
  ClusterMapPtr map_;
  int64_t map_revision_ = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_OBSERVED_CLUSTER_H_
