// Nodes of a cluster around a real etcd, without stores.
#include "server/cluster/etcd_membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/cluster/saved_map.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/cluster/etcd/etcd_server.h"
#include "tests/unit/cluster/liveness/listener.h"

namespace attic {
namespace {

constexpr absl::Duration kLease = absl::Seconds(2);
// So long that nothing in a test happens because it ends.
constexpr absl::Duration kLongLease = absl::Seconds(120);
constexpr absl::Duration kPatience = absl::Seconds(30);

using Nodes = std::vector<std::unique_ptr<EtcdMembership>>;

class EtcdMembershipTest : public testing::Test {
 protected:
  void SetUp() override {
    auto etcd = EtcdServer::Start();
    ASSERT_TRUE(etcd.ok()) << etcd.status();
    etcd_ = *std::move(etcd);
  }

  std::unique_ptr<EtcdMembership> Start(const std::string& id, const std::string& boot_id = "1",
                                        size_t initial_nodes = 1) {
    EtcdMembershipOptions options;
    options.cluster = "test";
    // Nobody listens there, unless the test does: peers are not asked.
    const auto listener = listeners_.find(id);
    options.node = {
        .node_id = id,
        .address = listener == listeners_.end() ? "127.0.0.1:1" : listener->second.address(),
        .zone = id,
        .boot_id = boot_id};
    options.etcd = etcd_->ClientOptions();
    options.lease = lease_;
    options.placement = {.slots = 16, .replicas_default = 2, .replicas = 2};
    options.initial_nodes = initial_nodes;
    if (saving_) {
      const auto saved = LoadMap(SavedMapFolder(id), options.cluster);
      EXPECT_TRUE(saved.ok()) << saved.status();
      options.saved_map = *saved;
      options.save_map = [folder = SavedMapFolder(id)](const ClusterMap& map) {
        return SaveMap(folder, map);
      };
    }
    auto started = EtcdMembership::Start(options);
    EXPECT_TRUE(started.ok()) << started.status();
    return *std::move(started);
  }

  std::string SavedMapFolder(const std::string& id) {
    std::filesystem::create_directories(folder_.file(id));
    return folder_.file(id);
  }
  void WaitUntilSaved(const ClusterMap& map) {
    const absl::Time deadline = absl::Now() + kPatience;
    for (const auto& node : nodes_) {
      absl::StatusOr<ClusterMapPtr> saved;
      do {
        saved = LoadMap(SavedMapFolder(node->node_id()), map.cluster);
        ASSERT_TRUE(saved.ok()) << saved.status();
        ASSERT_LT(absl::Now(), deadline) << node->node_id();
      } while (*saved == nullptr || **saved != map);
    }
  }

  // Three nodes that listen, under leases that do not end.
  void StartThree() {
    lease_ = kLongLease;
    for (const char* id : {"a", "b", "c"}) listeners_.try_emplace(id);
    for (const char* id : {"a", "b", "c"}) nodes_.push_back(Start(id, "1", 3));
    WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
    WaitUntilReached();
  }
  // Whether a node's address refuses says something only to who has reached it before. The third
  // connection to a node that is not the controller is at least the second of the controller's.
  void WaitUntilReached() {
    for (const auto& [id, listener] : listeners_) {
      for (int reached = 0; reached < 3; ++reached) {
        EXPECT_TRUE(listener.Await(kPatience)) << id << " is not connected to";
      }
    }
  }
  Nodes::iterator Find(bool controlling) {
    return std::find_if(nodes_.begin(), nodes_.end(),
                        [&](const auto& node) { return node->controlling() == controlling; });
  }
  // As kill -9 of the process: nothing is said to anybody, and nothing listens any more. Returns
  // its id.
  std::string Kill(Nodes::iterator node) {
    const std::string id = (*node)->node_id();
    listeners_.at(id).Close();
    nodes_.erase(node);
    return id;
  }
  void WaitUntilDown(const std::string& id) {
    WaitFor([&](const ClusterMap& m) { return m.nodes[m.FindNode(id)].state == NodeState::kDown; });
  }
  uint64_t Accusations() {
    uint64_t sum = 0;
    for (const auto& node : nodes_) sum += node->etcd_calls()->accusations;
    return sum;
  }

  // Each node reports that it holds everything, as an empty one does.
  void ReportAll() {
    for (const auto& node : nodes_) {
      const ClusterMapPtr map = node->map();
      if (map == nullptr) continue;
      const int64_t index = map->FindNode(node->node_id());
      SyncReport report{.epoch = map->epoch, .node_synced = true};
      for (uint32_t slot = 0; slot < map->slots.size(); ++slot) {
        const auto& incoming = map->slots[slot].incoming;
        if (std::count(incoming.begin(), incoming.end(), index) > 0) report.slots.push_back(slot);
      }
      node->Report(report);
    }
  }

  // Waits until all nodes know a map for which it holds, and the same.
  ClusterMapPtr WaitFor(const std::function<bool(const ClusterMap&)>& condition) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      ReportAll();
      const ClusterMapPtr map = nodes_.front()->map();
      const bool same = map != nullptr && std::all_of(nodes_.begin(), nodes_.end(), [&](auto& n) {
                          return n->map() != nullptr && *n->map() == *map;
                        });
      if (same && condition(*map)) return map;
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "not in " << kPatience;
    return nodes_.front()->map();
  }

  static std::string States(const ClusterMap& map) {
    std::string states;
    for (const ClusterNode& node : map.nodes) {
      absl::StrAppend(&states, node.id, " ", NodeStateName(node.state), ",");
    }
    return states;
  }

  static bool Settled(const ClusterMap& map, size_t live) {
    return std::count_if(map.nodes.begin(), map.nodes.end(),
                         [](const auto& node) { return node.state == NodeState::kLive; }) ==
               static_cast<int64_t>(live) &&
           std::all_of(map.slots.begin(), map.slots.end(), [](const auto& slot) {
             return slot.incoming.empty() && slot.replicas.size() == 2;
           });
  }

  size_t Controllers() {
    return static_cast<size_t>(std::count_if(nodes_.begin(), nodes_.end(),
                                             [](auto& node) { return node->controlling(); }));
  }

  std::unique_ptr<EtcdServer> etcd_;
  absl::Duration lease_ = kLease;
  bool saving_ = false;  // nodes keep maps on disk
  const TemporaryFolder folder_;
  std::map<std::string, Listener> listeners_;
  Nodes nodes_;
};

TEST_F(EtcdMembershipTest, NodesFormAClusterAndOneControls) {
  for (const char* id : {"a", "b", "c"}) nodes_.push_back(Start(id, "1", 3));
  const ClusterMapPtr map = WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  EXPECT_EQ(map->cluster, "test");
  EXPECT_EQ(States(*map), "a live,b live,c live,");
  EXPECT_EQ(Controllers(), 1u);
}

TEST_F(EtcdMembershipTest, ANodeThatGoesIsDownAndRepairsWhenItIsBack) {
  for (const char* id : {"a", "b", "c"}) nodes_.push_back(Start(id, "1", 3));
  WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  // Also when it is the controller that goes.
  const auto controller = std::find_if(nodes_.begin(), nodes_.end(),
                                       [](const auto& node) { return node->controlling(); });
  ASSERT_NE(controller, nodes_.end());
  const std::string gone = (*controller)->node_id();
  const absl::Time killed = absl::Now();
  nodes_.erase(controller);
  WaitFor([&](const ClusterMap& m) { return m.nodes[m.FindNode(gone)].state == NodeState::kDown; });
  EXPECT_LT(absl::Now() - killed, 2 * kLease);
  auto back = Start(gone, "2");
  nodes_.push_back(std::move(back));
  bool repairing = false;
  WaitFor([&](const ClusterMap& m) {
    const ClusterNode& node = m.nodes[m.FindNode(gone)];
    repairing = repairing || node.state == NodeState::kRepairing;
    return Settled(m, 3) && node.boot_id == "2";
  });
}

TEST_F(EtcdMembershipTest, AKilledProcessIsDownBeforeItsLeaseEnds) {
  StartThree();
  const absl::Time killed = absl::Now();
  const std::string gone = Kill(Find(false));
  WaitUntilDown(gone);
  EXPECT_EQ(Accusations(), 1u);
  listeners_.at(gone).Listen();
  nodes_.push_back(Start(gone, "2"));
  WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  WaitUntilReached();
  // Also the controller: another one is elected, and calls it down.
  const std::string controller = Kill(Find(true));
  WaitUntilDown(controller);
  EXPECT_EQ(Controllers(), 1u);
  EXPECT_LT(absl::Now() - killed, kLongLease / 2);
}

TEST_F(EtcdMembershipTest, TheControllerAndAnotherNodeAreKilledTogether) {
  StartThree();
  const std::string one = Kill(Find(true));
  const std::string other = Kill(nodes_.begin());
  WaitFor([&](const ClusterMap& m) {
    return m.nodes[m.FindNode(one)].state == NodeState::kDown &&
           m.nodes[m.FindNode(other)].state == NodeState::kDown;
  });
  EXPECT_EQ(Controllers(), 1u);
}

// A node whose address refuses although it lives, as behind something that stopped passing on,
// comes back by itself, and then is left alone.
TEST_F(EtcdMembershipTest, ANodeThatWasAccusedWronglyComesBack) {
  StartThree();
  for (const bool controlling : {false, true}) {
    SCOPED_TRACE(controlling);
    EtcdMembership& accused = **Find(controlling);
    const uint64_t before = Accusations();
    listeners_.at(accused.node_id()).Close();
    WaitFor([&](const ClusterMap& m) {
      return accused.etcd_calls()->returns > 0 && Settled(m, 3) && Controllers() == 1;
    });
    EXPECT_EQ(accused.etcd_calls()->returns, 1u);
    EXPECT_EQ(accused.etcd_calls()->lease_losses, 0u);
    EXPECT_EQ(Accusations(), before + 1);
  }
  // Meanwhile a process that is gone is found out, and still nobody else is accused.
  const auto listening = std::find_if(nodes_.begin(), nodes_.end(), [](const auto& node) {
    return node->etcd_calls()->returns == 0;
  });
  ASSERT_NE(listening, nodes_.end());
  const uint64_t own = (*listening)->etcd_calls()->accusations;
  const uint64_t before = Accusations() - own;
  WaitUntilDown(Kill(listening));
  EXPECT_EQ(Accusations(), before + 1);
  for (const auto& node : nodes_) EXPECT_EQ(node->etcd_calls()->returns, 1u);
}

// Nobody is elected as long as the key of the process before is there: its lease goes on.
TEST_F(EtcdMembershipTest, AControllerThatRestartsAtOnceEndsItsOwnElection) {
  StartThree();
  const auto controller = Find(true);
  const std::string id = (*controller)->node_id();
  nodes_.erase(controller);
  nodes_.push_back(Start(id, "2"));
  WaitFor([&](const ClusterMap& m) {
    return Settled(m, 3) && m.nodes[m.FindNode(id)].boot_id == "2" && Controllers() == 1;
  });
  EXPECT_EQ(Accusations(), 0u);
}

TEST_F(EtcdMembershipTest, ANodeThatLeavesIsDownAtOnce) {
  for (const char* id : {"a", "b", "c"}) nodes_.push_back(Start(id, "1", 3));
  WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  for (const auto& node : nodes_) {
    if (!node->controlling()) continue;
    const absl::Time begin = absl::Now();
    node->Leave(begin + kPatience);
    EXPECT_LT(absl::Now() - begin, kLease);
    const ClusterMapPtr map = node->map();
    EXPECT_EQ(map->nodes[map->FindNode(node->node_id())].state, NodeState::kDown);
    break;
  }
}

TEST_F(EtcdMembershipTest, WishesOfOperatorsAreCarriedOut) {
  for (const char* id : {"a", "b", "c", "d"}) nodes_.push_back(Start(id, "1", 4));
  WaitFor([](const ClusterMap& m) { return Settled(m, 4); });
  const absl::Time deadline = absl::Now() + kPatience;
  EXPECT_EQ(nodes_[0]->Change("nobody", NodeChange::kDrain, deadline).code(),
            absl::StatusCode::kNotFound);
  ASSERT_TRUE(nodes_[0]->Change("d", NodeChange::kDrain, deadline).ok());
  const auto holds = [](const ClusterMap& m, const std::string& id) {
    const auto index = static_cast<uint32_t>(m.FindNode(id));
    return std::count_if(m.slots.begin(), m.slots.end(), [&](const SlotAssignment& slot) {
      return std::count(slot.replicas.begin(), slot.replicas.end(), index) > 0;
    });
  };
  WaitFor([&](const ClusterMap& m) { return Settled(m, 4) && holds(m, "d") == 0; });
  ASSERT_TRUE(nodes_[1]->Change("d", NodeChange::kAdd, deadline).ok());
  ASSERT_TRUE(nodes_[1]->Rebalance(deadline).ok());
  WaitFor([&](const ClusterMap& m) { return Settled(m, 4) && holds(m, "d") >= 6; });
}

// While etcd is paused, killed or has lost everything, the map stays; afterwards the cluster goes
// on from it, nobody is called down, and epochs grow.
TEST_F(EtcdMembershipTest, WithoutEtcdTheMapStays) {
  for (const char* id : {"a", "b", "c"}) nodes_.push_back(Start(id, "1", 3));
  ClusterMapPtr before = WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  for (const auto& node : nodes_) {
    EXPECT_EQ(node->etcd_calls(), (EtcdCalls{.connected = true})) << node->node_id();
  }
  const auto away = 3 * kLease;
  const std::vector<std::pair<const char*, std::function<void()>>> outages = {
      {"paused",
       [&] {
         etcd_->Pause();
         absl::SleepFor(away);
         etcd_->Resume();
       }},
      {"killed",
       [&] {
         etcd_->Kill();
         absl::SleepFor(away);
         ASSERT_TRUE(etcd_->Restart().ok());
       }},
      {"wiped",
       [&] {
         etcd_->Kill();
         absl::SleepFor(away);
         ASSERT_TRUE(etcd_->Wipe().ok());
       }},
  };
  for (const auto& [name, outage] : outages) {
    SCOPED_TRACE(name);
    std::vector<EtcdCalls> calls;
    for (const auto& node : nodes_) calls.push_back(*node->etcd_calls());
    outage();
    for (size_t i = 0; i < nodes_.size(); ++i) {
      EXPECT_GE(nodes_[i]->map()->epoch, before->epoch);
      EXPECT_GT(nodes_[i]->etcd_calls()->failures, calls[i].failures);
      EXPECT_GT(nodes_[i]->etcd_calls()->lease_losses, calls[i].lease_losses);
    }
    // The cluster changes again: a node is drained and taken back.
    const absl::Time deadline = absl::Now() + kPatience;
    absl::Status asked = absl::UnavailableError("");
    while (!asked.ok() && absl::Now() < deadline) {
      asked = nodes_[0]->Change("c", NodeChange::kDrain, deadline);
    }
    ASSERT_TRUE(asked.ok()) << asked;
    const ClusterMapPtr drained = WaitFor([&](const ClusterMap& m) {
      EXPECT_EQ(std::count_if(m.nodes.begin(), m.nodes.end(),
                              [](const auto& n) { return n.state == NodeState::kDown; }),
                0)
          << States(m);
      return m.epoch > before->epoch && m.nodes[2].draining;
    });
    ASSERT_TRUE(nodes_[0]->Change("c", NodeChange::kAdd, deadline).ok());
    before = WaitFor([&](const ClusterMap& m) {
      return m.epoch > drained->epoch && !m.nodes[2].draining && Settled(m, 3);
    });
    EXPECT_EQ(Controllers(), 1u);
    WaitFor([&](const ClusterMap&) {
      return std::all_of(nodes_.begin(), nodes_.end(),
                         [](const auto& node) { return node->etcd_calls()->connected; });
    });
  }
}

// The copy knows nothing of a node that came since, and has an old map. Registrations that are in
// it, and whose leases go on, are as they were.
TEST_F(EtcdMembershipTest, AnOldCopyOfEtcdIsBroughtUpToDate) {
  lease_ = kLongLease;
  for (const char* id : {"a", "b"}) nodes_.push_back(Start(id, "1", 2));
  WaitFor([](const ClusterMap& m) { return Settled(m, 2); });
  ASSERT_TRUE(etcd_->RestartAndCopy().ok());
  nodes_.push_back(Start("c"));
  ClusterMapPtr before = WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  ASSERT_TRUE(etcd_->RestartFromCopy().ok());
  before = WaitFor([&](const ClusterMap& m) { return m.epoch > before->epoch && Settled(m, 3); });
  const absl::Time deadline = absl::Now() + kPatience;
  for (const NodeChange change : {NodeChange::kDrain, NodeChange::kAdd}) {
    ASSERT_TRUE(nodes_[0]->Change("c", change, deadline).ok());
    before = WaitFor([&](const ClusterMap& m) {
      return m.epoch > before->epoch && m.nodes[2].draining == (change == NodeChange::kDrain);
    });
  }
  EXPECT_EQ(Controllers(), 1u);
}

// Power is lost everywhere, etcd's data with it. What nodes hold is where the map on their disks
// says, which is not where a new cluster would put it.
TEST_F(EtcdMembershipTest, MapsOnDisksOutliveEtcdAndAllProcesses) {
  saving_ = true;
  for (const char* id : {"a", "b"}) nodes_.push_back(Start(id, "1", 2));
  WaitFor([](const ClusterMap& m) { return Settled(m, 2); });
  nodes_.push_back(Start("c"));
  const ClusterMapPtr before = WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  WaitUntilSaved(*before);
  nodes_.clear();
  ASSERT_TRUE(etcd_->Wipe().ok());
  // The first node that is back knows nothing: it has a new disk.
  std::filesystem::remove_all(folder_.file("a"));
  for (const char* id : {"a", "b", "c"}) nodes_.push_back(Start(id, "2"));
  const ClusterMapPtr after = WaitFor([&](const ClusterMap& m) {
    return m.epoch > before->epoch && Settled(m, 3) && m.nodes[0].boot_id == "2";
  });
  ASSERT_EQ(after->slots.size(), before->slots.size());
  for (size_t slot = 0; slot < after->slots.size(); ++slot) {
    EXPECT_EQ(after->slots[slot].replicas, before->slots[slot].replicas) << slot;
  }
}

// A disk from elsewhere: the cluster had another life, or this node another cluster.
TEST_F(EtcdMembershipTest, AMapOnDiskIsNothingBesideThatOfEtcd) {
  saving_ = true;
  for (const char* id : {"a", "b"}) nodes_.push_back(Start(id, "1", 2));
  ClusterMap old = *WaitFor([](const ClusterMap& m) { return Settled(m, 2); });
  old.epoch += 1000;
  ASSERT_TRUE(SaveMap(SavedMapFolder("c"), old).ok());
  nodes_.push_back(Start("c"));
  const ClusterMapPtr map = WaitFor([](const ClusterMap& m) { return Settled(m, 3); });
  EXPECT_LT(map->epoch, old.epoch);
  WaitUntilSaved(*map);
}

// A node that is new when etcd comes back empty is registered before the others, which attempt it
// once in a while: it is elected first, and must not begin the cluster anew, knowing no map. Nobody
// answers it here, so that it has to leave the election to one of them.
TEST_F(EtcdMembershipTest, ANewNodeDoesNotBeginAKnownClusterAnew) {
  for (const absl::Duration lease : {kLease, kLongLease}) {
    SCOPED_TRACE(lease);
    nodes_.clear();
    ASSERT_TRUE(etcd_->Wipe().ok());
    lease_ = lease;
    for (const char* id : {"a", "b"}) nodes_.push_back(Start(id, "1", 2));
    ClusterMapPtr before = WaitFor([](const ClusterMap& m) { return Settled(m, 2); });
    for (const char* id : {"c", "d"}) {
      SCOPED_TRACE(id);
      etcd_->Kill();
      if (lease == kLease) absl::SleepFor(lease + absl::Seconds(1));  // so that leases are lost
      ASSERT_TRUE(etcd_->Wipe().ok());
      nodes_.push_back(Start(id));
      before = WaitFor([&](const ClusterMap& m) {
        return m.epoch > before->epoch && Settled(m, nodes_.size());
      });
      EXPECT_EQ(Controllers(), 1u);
    }
  }
}

}  // namespace
}  // namespace attic
