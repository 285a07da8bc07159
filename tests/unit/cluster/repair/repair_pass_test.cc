// Whole nodes, in virtual time.
#include "server/cluster/repair/repair_pass.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "tests/unit/cluster/repair/sim_cluster.h"

namespace attic {
namespace {

// Three nodes, of which all are replicas of all slots.
SimOptions Three(uint64_t seed = 5) { return {.seed = seed, .nodes = 3, .slots = 4}; }

void Fill(SimCluster& cluster, uint32_t replicas, int sessions) {
  for (int i = 0; i < sessions; ++i) {
    cluster.Open(static_cast<uint32_t>(i) % cluster.options().slots, replicas);
    cluster.Append("s" + std::to_string(i), 20 + static_cast<size_t>(i));
  }
}

TEST(RepairPassTest, TheOracleSeesALoss) {
  SimCluster cluster(Three());
  Fill(cluster, 3, 1);
  const std::string id = cluster.sessions().begin()->first;
  cluster.CheckLiveReplicas();
  ASSERT_TRUE(cluster.node(2).Truncate(id, 3).ok());
  static SimCluster* checked = &cluster;
  testing::TestPartResultArray failures;
  {
    testing::ScopedFakeTestPartResultReporter reporter(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    checked->CheckLiveReplicas();
  }
  EXPECT_GT(failures.size(), 0);
}

TEST(RepairPassTest, AWholeClusterThatWasRestartedLosesNothing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    SimCluster cluster(Three(seed));
    Fill(cluster, 3, 12);
    // One lags behind, another lacks some.
    for (const auto& [id, session] : cluster.sessions()) {
      const int number = id.back() - '0';
      if (number % 2 == 0) EXPECT_TRUE(cluster.node(seed % 3).Truncate(id, 7).ok());
      if (number % 3 == 0) EXPECT_TRUE(cluster.node((seed + 1) % 3).Close(id).ok());
    }
    cluster.RestartAll();
    for (uint32_t i = 0; i < 3; ++i) cluster.BringBack((i + seed) % 3, SimCluster::Return::kSame);
    cluster.Settle();
    cluster.CheckExact();
  }
}

TEST(RepairPassTest, WithoutALiveReplicaOneThatIsDownIsWaitedFor) {
  SimCluster cluster(Three());
  Fill(cluster, 2, 6);
  cluster.RestartAll();
  cluster.BringBack(0, SimCluster::Return::kSame);
  for (int i = 0; i < 10; ++i) {
    cluster.clock().Advance(absl::Seconds(10));
    cluster.Pass(0);
  }
  EXPECT_EQ(cluster.map().nodes[0].state, NodeState::kRepairing);
  cluster.clock().Advance(absl::Minutes(5));
  cluster.Pass(0);
  cluster.Pass(0);
  EXPECT_EQ(cluster.map().nodes[0].state, NodeState::kLive);
}

TEST(RepairPassTest, WhatWasClosedMeanwhileIsClosedAfterASecondLook) {
  SimCluster cluster(Three());
  Fill(cluster, 3, 2);
  ASSERT_TRUE(cluster.TakeDown(1));
  const std::string id = cluster.sessions().begin()->first;
  cluster.Close(id);
  cluster.BringBack(1, SimCluster::Return::kSame);
  cluster.Pass(1);
  EXPECT_NE(cluster.node(1).Find(id), nullptr);
  EXPECT_EQ(cluster.map().nodes[1].state, NodeState::kRepairing);
  cluster.clock().Advance(absl::Seconds(3));
  for (int i = 0; i < 4; ++i) cluster.Pass(1);
  EXPECT_EQ(cluster.node(1).Find(id), nullptr);
  EXPECT_EQ(cluster.map().nodes[1].state, NodeState::kLive);
  EXPECT_EQ(cluster.progress(1).shards_dropped, 1);
}

TEST(RepairPassTest, ANodeIsFilledWhenASecondLookFindsNothing) {
  SimCluster cluster(Three());
  Fill(cluster, 3, 3);
  ASSERT_TRUE(cluster.TakeDown(1));
  cluster.BringBack(1, SimCluster::Return::kEmpty);
  cluster.Pass(1);
  EXPECT_EQ(cluster.progress(1).shards_pulled, 3);
  EXPECT_EQ(cluster.map().nodes[1].state, NodeState::kRepairing);
  // A write that fails there alone.
  cluster.options().missed_append = 1;
  cluster.Append("s1", 5);
  cluster.Pass(1);
  EXPECT_EQ(cluster.map().nodes[1].state, NodeState::kRepairing);
  cluster.Pass(1);
  EXPECT_TRUE(cluster.map().nodes[1].joining);
  cluster.Pass(1);
  EXPECT_EQ(cluster.map().nodes[1].state, NodeState::kLive);
  cluster.CheckExact();
}

TEST(RepairPassTest, WhatWasOpenedSinceIsLeftAlone) {
  SimCluster cluster(Three());
  Fill(cluster, 3, 1);
  ASSERT_TRUE(cluster.TakeDown(1));
  cluster.BringBack(1, SimCluster::Return::kSame);
  cluster.Pass(1);
  // Here first, and on its way to the others.
  ASSERT_TRUE(cluster.node(1).Open({.session_id = "new", .slot = 2, .replicas = 3}));
  for (int i = 0; i < 5; ++i) {
    cluster.clock().Advance(absl::Seconds(3));
    cluster.Pass(1);
  }
  EXPECT_NE(cluster.node(1).Find("new"), nullptr);
}

TEST(RepairPassTest, AGapOfALiveNodeIsFilledWhenReported) {
  SimCluster cluster(Three());
  Fill(cluster, 3, 2);
  for (uint32_t i = 0; i < 3; ++i) cluster.Pass(i);
  const auto& [id, session] = *cluster.sessions().begin();
  ASSERT_TRUE(cluster.node(1).Close(id).ok());
  cluster.clock().Advance(absl::Minutes(10));
  cluster.Pass(1);
  // It may have been closed here a moment earlier.
  EXPECT_EQ(cluster.node(1).Find(id), nullptr);
  cluster.Pass(1, {id});
  ASSERT_NE(cluster.node(1).Find(id), nullptr);
  EXPECT_EQ(cluster.node(1).Find(id)->rows, session.rows);
}

TEST(RepairPassTest, APeerOfAnotherBootOrAnOlderMapIsNotBelieved) {
  FakeClock clock;
  FakeNode own, other;
  ASSERT_TRUE(own.Open({.session_id = "s", .slot = 0, .replicas = 2}));
  const auto now = [&] { return clock.Now(); };
  ShardChanges changes(absl::Seconds(1), now);
  const auto peer = std::make_shared<FakePeer>(other, clock);
  peer->boot_id = "second";
  RepairOptions options{.parallel_pulls = 1, .clock = now};
  options.wait_until = [&](absl::Time time) {
    clock.AdvanceTo(time);
    return true;
  };
  RepairPass pass(
      "a", own, changes, [&](const ClusterNode&) { return peer; }, options);
  auto map = std::make_shared<ClusterMap>();
  map->epoch = 3;
  map->nodes = {{.id = "a", .address = "x:1", .state = NodeState::kRepairing},
                {.id = "b", .address = "x:2", .boot_id = "first"}};
  map->slots = {{.replicas = {0, 1}}};
  const auto run = [&] {
    std::optional<SyncReport> report;
    for (int i = 0; i < 5; ++i) {
      clock.Advance(absl::Seconds(40));
      report = pass.Run({.map = map}).report;
    }
    return report->node_synced;
  };
  // The new process of b lost "s", and the map does not know yet.
  EXPECT_FALSE(run());
  EXPECT_NE(own.Find("s"), nullptr);
  peer->boot_id = "first";
  peer->epoch = 2;
  EXPECT_FALSE(run());
  EXPECT_NE(own.Find("s"), nullptr);
  peer->epoch = 3;
  EXPECT_TRUE(run());
  EXPECT_EQ(own.Find("s"), nullptr);
}

}  // namespace
}  // namespace attic
