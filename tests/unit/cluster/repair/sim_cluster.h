// A cluster of fake nodes in virtual time: callers, a controller, faults, and what should be held.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_REPAIR_SIM_CLUSTER_H_
#define ATTIC_TESTS_UNIT_CLUSTER_REPAIR_SIM_CLUSTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "server/cluster/repair/repair_pass.h"
#include "tests/unit/cluster/repair/fake_node.h"

namespace attic {

struct SimOptions {
  uint64_t seed = 1;
  uint32_t nodes = 4;
  uint32_t slots = 8;
  double fault = 0;          // of a call to a peer
  double missed_append = 0;  // of an append to a node that is not live, or being filled
  double busy = 0;           // chance that a caller does something in the middle of a call
  double single = 0.05;      // of sessions, those of one replica, whose node cannot be taken down
};

// What callers were told is held: an oracle.
struct SimSession {
  uint32_t slot = 0;
  uint32_t replicas = 0;
  Durability durability = Durability::kMemory;
  FakeRows rows;
};

// Errors of what is checked are gtest failures. One thread.
class SimCluster {
 public:
  explicit SimCluster(const SimOptions& options);

  // What callers do, on all replicas. What is live must hold all; nothing where one that joins
  // lags, which callers wait for.
  void RandomCall();
  void Open(uint32_t slot, uint32_t replicas);
  void Append(const std::string& id, size_t count);
  void Truncate(const std::string& id, int64_t position);
  void Close(const std::string& id);
  void Fork(const std::string& id, int64_t position);

  // What happens to nodes.
  void RandomEvent();
  // False when that would leave a session without a live replica.
  bool TakeDown(uint32_t node);
  // Comes back repairing: the same process, or a new one that has what was durable, or nothing.
  enum class Return { kSame, kRestarted, kEmpty };
  void BringBack(uint32_t node, Return how);
  void Move(uint32_t slot, uint32_t node);  // `node` is to be filled
  void RestartAll();

  // One pass of a node; the controller acts on its report.
  void Pass(uint32_t node, std::set<std::string> gaps = {});
  // No faults any more; until all are live and all is moved.
  void Settle();

  // All live replicas of every session, at least one, hold all of it.
  void CheckLiveReplicas();
  // Every node holds what it should, and nothing else.
  void CheckExact();

  FakeNode& node(uint32_t i) { return *nodes_[i].node; }
  ClusterMap& map() { return map_; }
  FakeClock& clock() { return clock_; }
  std::map<std::string, SimSession>& sessions() { return sessions_; }
  SimOptions& options() { return options_; }
  RepairProgress progress(uint32_t i) { return nodes_[i].pass->progress(); }
  uint64_t closes() const { return closes_; }
  uint64_t moves() const { return moves_; }
  uint64_t returns() const { return returns_; }

 private:
  struct Node {
    std::unique_ptr<FakeNode> node;
    std::unique_ptr<ShardChanges> changes;
    std::unique_ptr<RepairPass> pass;
    std::set<std::string> gaps;
  };

  bool Chance(double probability);
  bool Misses(const SimSession& session, uint32_t node);
  bool Joins(const SimSession& session, uint32_t node) const;
  size_t Below(size_t count);
  void Start(uint32_t node);
  std::shared_ptr<ShardPeer> MakePeer(const ClusterNode& node);
  Fault RandomFault();
  // Of a session: first replicas that are not down, and incoming ones.
  std::vector<uint32_t> Writers(const SimSession& session) const;
  std::vector<uint32_t> LiveOwners(const SimSession& session) const;
  bool IsLiveOwner(const SimSession& session, uint32_t node) const;
  bool Holds(uint32_t node, const std::string& id, const SimSession& session);
  bool Ready(const std::string& id);
  void Act(uint32_t node, const SyncReport& report);
  void Changed();  // the map
  std::string NextId();
  void Dump(const std::string& id, const SimSession& session);

  SimOptions options_;
  FakeClock clock_;
  std::mt19937_64 random_;
  std::vector<Node> nodes_;
  ClusterMap map_;
  std::map<std::string, SimSession> sessions_;
  // Those closed that nobody live could say so of since: they may come back.
  std::map<std::string, SimSession> closed_;
  std::set<std::string> forgotten_;
  uint64_t next_id_ = 0, closes_ = 0, moves_ = 0, returns_ = 0, boots_ = 0;
  bool in_call_ = false;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_REPAIR_SIM_CLUSTER_H_
