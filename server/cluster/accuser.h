// Ends the registrations of processes that are gone, before their leases end.
#ifndef ATTIC_SERVER_CLUSTER_ACCUSER_H_
#define ATTIC_SERVER_CLUSTER_ACCUSER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/controller.h"
#include "server/cluster/etcd/etcd_client.h"
#include "server/cluster/liveness/liveness_probe.h"
#include "server/cluster/membership.h"
#include "server/cluster/observed_cluster.h"

namespace attic {

struct AccuserOptions {
  std::string cluster;
  std::string node_id;
  LivenessProbeOptions probe;
};

// The controller probes every other node, and every other node the controller (liveness_probe.h
// says what counts). Of a node that is gone the controller deletes the registration; of a
// controller that is gone the others delete registration and election, so that another is elected
// at once. A deletion is a transaction that fails if the node registered anew, or another node was
// elected, since the process was seen to listen. What follows is what follows when a lease ends.
//
// A process that lives although it was accused puts its registration back under the lease it has.
// Whoever sees that leaves it alone for kLeftAloneMin, doubled each time up to kLeftAloneMax:
// meanwhile only its lease counts.
//
// All nodes connect once to every process that registers, so that whoever is elected knows already
// who could be reached.
class Accuser {
 public:
  // Of the controller's connections to a node.
  static constexpr absl::Duration kPeriod = absl::Milliseconds(250);
  // The controller connects no more often; it takes longer between two in large clusters.
  static constexpr double kConnectionsPerSecondMax = 512;
  // The controller is connected to as often as if so many nodes did that each kPeriod.
  static constexpr double kWatchersOfController = 8;
  // To a process that has just registered, the first connections of all nodes together.
  static constexpr double kFirstConnectionsPerSecond = 256;
  static constexpr absl::Duration kLeftAloneMin = absl::Minutes(1);
  static constexpr absl::Duration kLeftAloneMax = absl::Hours(1);
  // How long it counts that a process was found gone; it is found so again as long as it matters.
  static constexpr absl::Duration kEvidenceTime = absl::Seconds(3);

  // `on_found` is called, on a thread of the accuser's without locks held, whenever gone() has got
  // more. `client` must outlive the accuser.
  Accuser(EtcdClient& client, AccuserOptions options, std::function<void()> on_found);
  // Waits for a call to etcd that is running.
  ~Accuser() = default;

  // Says how things stand. Without a lease, as when etcd cannot be reached, nobody is accused. Does
  // not wait. For one thread at a time.
  void Observe(const ControllerInput& input);

  // Processes that are gone for certain: boot ids, by node id. Thread-safe.
  std::map<std::string, std::string> gone() const;
  // Registrations that were deleted. Thread-safe.
  uint64_t accusations() const { return accusations_; }

 private:
  // How a process that is registered now, or was last, has come and gone.
  struct History {
    std::string boot_id;
    int64_t create_revision = 0;
    int64_t lease = 0;
    int returns = 0;  // under the same lease
    absl::Time left_alone_until = absl::InfinitePast();
  };
  struct Evidence {
    std::string boot_id;
    int64_t registration = 0;  // that was its last
    absl::Time found;
  };

  void Remember(const ControllerInput& input);
  std::vector<ProbeTarget> Targets(const ControllerInput& input) const;
  // The nodes of the map that are not registered.
  void AddMissing(const ControllerInput& input, absl::Duration period, bool until_accepted,
                  std::vector<ProbeTarget>& targets) const;
  bool LeftAlone(const std::string& node_id, absl::Time now) const;
  void OnGone(const ProbeTarget& target);
  EtcdTransaction Deletion(const ProbeTarget& target, const ObservedController& controller) const;

  EtcdClient& client_;
  const std::string node_id_;
  const ClusterKeys keys_;
  const std::function<void()> on_found_;
  std::map<std::string, History> histories_;  // by node id; the observing thread's
  std::atomic<uint64_t> accusations_ = 0;

  mutable Mutex mutex_;
  std::optional<ObservedController> controller_ ATTIC_GUARDED_BY(mutex_);
  std::map<std::string, Evidence> evidence_ ATTIC_GUARDED_BY(mutex_);  // by node id

  LivenessProbe probe_;  // last: it calls back
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ACCUSER_H_
