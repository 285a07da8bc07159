// A cluster in virtual time: nodes that fail and return, clients that write, repair at a finite
// rate, a controller that calls NextMap. It knows what each node really holds, and checks after
// each step that the map promises nothing that is not so.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_PLACEMENT_CLUSTER_MODEL_H_
#define ATTIC_TESTS_UNIT_CLUSTER_PLACEMENT_CLUSTER_MODEL_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "server/cluster/placement/next_map.h"

namespace attic {

struct ModelOptions {
  uint64_t seed = 1;
  uint32_t nodes = 1000;
  uint32_t zones = 10;
  PlacementOptions placement;
  absl::Duration step = absl::Seconds(5);
  double fills_per_second = 1;    // of a slot's sessions of one kind, by each node
  double writes_per_slot = 0.05;  // in a step
};

// What is found to be wrong; 0 everywhere in a correct run, but for the last ones.
struct ModelCounts {
  uint64_t steps = 0;
  uint64_t maps = 0;
  uint64_t invalid_maps = 0;        // not valid, an epoch used twice, slots' epochs that lie
  uint64_t not_fixed = 0;           // the same view made another map
  uint64_t hollow_replicas = 0;     // live by the map, but without what they should hold
  uint64_t copies_given_up = 0;     // the last whole copy left a slot, though it existed
  uint64_t over_budget = 0;         // more incoming nodes than allowed
  uint64_t losses_unexplained = 0;  // not all holders ended within replace_after and repair
  // No errors:
  // By kind: all holders' disks were lost, or (kind 0) the only one was replaced.
  std::array<uint64_t, kReplicasMax> losses{};
  uint64_t writes = 0;
  uint64_t writes_refused = 0;
  double moved = 0;  // bytes of fills for incoming nodes
  // Replicas that were lost or emptied, and 1 - imbalance_max of the shares of nodes that came:
  // about what any placement has to move. (Less where a node has an older copy, or new sessions
  // began.)
  double moved_least = 0;

  uint64_t Errors() const {
    return invalid_maps + not_fixed + hollow_replicas + copies_given_up + over_budget +
           losses_unexplained;
  }
};

using NextMapFunction =
    std::function<ClusterMap(const ClusterMap&, const ClusterView&, const PlacementOptions&)>;

class ClusterModel {
 public:
  explicit ClusterModel(const ModelOptions& options, NextMapFunction next_map = NextMap);

  // Things that happen to nodes; ids of nodes that exist.
  enum class Failure {
    kCrash,     // the process ends; its disk stays
    kCutOff,    // nobody reaches it; it goes on, and returns as the same process
    kDiskLost,  // the process ends and what it held is lost
  };
  void Fail(const std::string& id, Failure failure);
  void Return(const std::string& id);  // after Fail
  std::string Add(const std::string& zone, uint64_t capacity);
  void Drain(const std::string& id);
  void Remove(const std::string& id);  // an operator says so
  // Nodes that are up and not drained, and that are not up.
  std::vector<std::string> UpNodes() const;
  std::vector<std::string> FailedNodes() const;
  std::vector<std::string> NodesOfZone(const std::string& zone) const;

  // Clients write, nodes fill, the controller looks, and all is checked.
  void Step();
  // Steps without failures until nothing changes; false if that takes longer than `steps_max`.
  bool Heal(int steps_max);

  const ClusterMap& map() const { return known_->map; }
  const ModelCounts& counts() const { return counts_; }
  // Sessions of one kind in a slot that lack a whole copy on one of the nodes that should have it.
  uint64_t Incomplete() const;
  // Adds what nodes that are there should have got to moved_least.
  void FinishLives();

 private:
  static constexpr uint32_t kKinds = kReplicasMax;  // kind k: sessions of k + 1 replicas
  using Versions = std::array<uint32_t, kKinds>;    // of what was acknowledged last; 0: nothing

  // What a node has to fill.
  struct Task {
    uint32_t slot = 0;
    uint32_t rank = 0;
    bool incoming = false;
  };
  // A map, with nodes by number (index in nodes_).
  struct KnownMap {
    ClusterMap map;
    std::vector<uint32_t> numbers;         // by index in the map
    std::vector<int64_t> indices;          // by number; -1 where it is not in the map
    std::vector<std::vector<Task>> tasks;  // by index
  };
  struct Node {
    std::string id;
    std::string zone;
    uint64_t capacity = 1;
    bool up = true;
    bool draining = false;
    bool removed = false;
    uint32_t boot = 1;
    std::shared_ptr<const KnownMap> known;
    uint64_t synced_epoch = 0;
    bool synced = false;
    std::set<uint32_t> synced_slots;
    double credit = 0;
    // What it held when it came, and what it got since in the place of nodes that left.
    double bytes_at_start = 0;
    double bytes_in_place = 0;
  };
  struct Held {
    uint32_t node = 0;
    Versions versions{};
  };
  struct Slot {
    Versions latest{};
    std::vector<Held> held;
    std::array<absl::Time, kKinds> degraded_since;
  };

  Node& NodeOf(const std::string& id) { return nodes_[numbers_.at(id)]; }
  std::shared_ptr<const KnownMap> Known(ClusterMap map) const;
  bool Serves(const KnownMap& known, uint32_t index) const;
  uint32_t VersionOf(uint32_t slot, uint32_t kind, uint32_t node) const;
  Versions& HeldBy(uint32_t slot, uint32_t node);
  bool Whole(uint32_t slot, uint32_t kind, uint32_t node) const;
  bool HasWhole(const KnownMap& known, uint32_t slot, uint32_t kind) const;
  double BytesOf(uint32_t node) const;
  void EndLife(uint32_t node);

  void WriteTo(uint32_t slot, uint32_t kind);
  void Repair();
  void RepairNode(uint32_t node);
  bool Fill(uint32_t node, const Task& task);
  int64_t Source(const KnownMap& known, uint32_t node, const Task& task, uint32_t kind) const;

  // In cluster_model_checks.cc.
  void Control();
  void LookAtNodes();
  void CheckMap(const KnownMap& before);
  void CheckReplicas(const KnownMap& before, uint32_t slot);
  bool HoldersRemoved(const KnownMap& before, uint32_t slot, uint32_t kind) const;
  void GiveUp(uint32_t slot, uint32_t kind);
  void CheckChange(const KnownMap& before, uint32_t slot);
  void CheckHolders();
  void Lose(uint32_t slot, uint32_t kind, bool explained);

  const ModelOptions options_;
  const NextMapFunction next_map_;
  std::mt19937_64 random_;
  absl::Time now_ = absl::UnixEpoch();
  std::vector<Node> nodes_;
  std::map<std::string, uint32_t> numbers_;
  std::vector<Slot> slots_;
  std::shared_ptr<const KnownMap> known_;  // the newest
  ClusterView view_;
  ModelCounts counts_;
  uint32_t added_ = 0;
  bool changed_ = false;
};

// Of a slot at a rank, in the units of ModelCounts: most sessions have two replicas.
double BytesOfRank(uint32_t rank);
double BytesOfKind(uint32_t kind);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_PLACEMENT_CLUSTER_MODEL_H_
