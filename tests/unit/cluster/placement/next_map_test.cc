// What NextMap does of what it sees: states of nodes, who takes over, what is never given up.
#include "server/cluster/placement/next_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/cluster/placement/cluster_fixture.h"

namespace attic {
namespace {

class NextMapTest : public ::testing::Test {
 protected:
  NextMapTest() {
    options_.slots = 64;
    view_.now = absl::UnixEpoch();
  }

  // A settled cluster of so many nodes.
  void Start(uint32_t nodes, uint32_t zones = 0) {
    view_.members = MakeMembers(nodes, zones);
    map_ = Settle({}, view_, options_);
    ASSERT_EQ(map_.nodes.size(), nodes);
  }
  // A cluster of so many nodes, one of which is being replaced for good; one of its slots.
  uint32_t StartFilling(uint32_t nodes) {
    Start(nodes);
    Leave(view_, "n0001");
    Next();
    PassTime();
    Next();
    uint32_t slot = 0;
    while (map_.slots[slot].incoming.empty()) ++slot;
    return slot;
  }
  void Next() { map_ = CheckedNext(map_, view_, options_); }
  void PassTime() { view_.now += options_.replace_after; }
  const ClusterNode& Node(const std::string& id) const { return map_.nodes[map_.FindNode(id)]; }
  std::string IdAt(uint32_t slot, uint32_t rank) const {
    return map_.nodes[map_.slots[slot].replicas[rank]].id;
  }
  void Report(const std::string& id, uint64_t epoch, bool synced, std::set<uint32_t> slots = {}) {
    Member& member = MemberOf(view_, id);
    member.synced_epoch = epoch;
    member.node_synced = synced;
    member.synced_slots = std::move(slots);
  }
  std::vector<uint64_t> SlotEpochs() const {
    std::vector<uint64_t> epochs;
    for (const SlotAssignment& slot : map_.slots) epochs.push_back(slot.epoch);
    return epochs;
  }
  size_t Incoming() const {
    size_t count = 0;
    for (const SlotAssignment& slot : map_.slots) count += slot.incoming.size();
    return count;
  }

  PlacementOptions options_;
  ClusterView view_;
  ClusterMap map_;
};

TEST_F(NextMapTest, TheFirstMapWaitsForAMember) {
  map_.cluster = "attic";
  EXPECT_EQ(NextMap(map_, view_, options_), map_);
  view_.members = MakeMembers(2, 0);
  Next();
  EXPECT_EQ(map_.cluster, "attic");
  EXPECT_EQ(map_.epoch, 1u);
  EXPECT_EQ(map_.slots.size(), 64u);
  EXPECT_EQ(map_.replicas_default, 2u);
  for (const ClusterNode& node : map_.nodes) EXPECT_EQ(node.state, NodeState::kLive);
  for (const SlotAssignment& slot : map_.slots) {
    EXPECT_EQ(slot.replicas.size(), 2u);
    EXPECT_TRUE(slot.incoming.empty());
    EXPECT_EQ(slot.epoch, 1u);
  }
}

TEST_F(NextMapTest, ANodeThatVanishesIsDownAndKeepsItsSlots) {
  Start(5);
  const std::vector<uint64_t> epochs = SlotEpochs();
  Leave(view_, "n0001");
  Next();
  EXPECT_EQ(Node("n0001").state, NodeState::kDown);
  EXPECT_EQ(Node("n0001").state_epoch, map_.epoch);
  EXPECT_EQ(SlotEpochs(), epochs);
  view_.now += options_.replace_after - absl::Seconds(1);
  const ClusterMap before = map_;
  Next();
  EXPECT_EQ(map_, before);
}

TEST_F(NextMapTest, ANodeThatReturnsRepairsUntilItSaysSo) {
  Start(5);
  for (const std::string boot : {"boot1", "boot2"}) {
    Report("n0001", map_.epoch, true);
    Member member = MemberOf(view_, "n0001");
    Leave(view_, "n0001");
    Next();
    member.boot_id = boot;
    Join(view_, member);  // its old report comes with it
    Next();
    EXPECT_EQ(Node("n0001").state, NodeState::kRepairing);
    EXPECT_EQ(Node("n0001").boot_id, boot);
    Report("n0001", map_.epoch - 1, true);
    Next();
    EXPECT_EQ(Node("n0001").state, NodeState::kRepairing);
    Report("n0001", map_.epoch, false);
    Next();
    EXPECT_EQ(Node("n0001").state, NodeState::kRepairing);
    // Other changes do not make its report old.
    const uint64_t epoch = map_.epoch;
    MemberOf(view_, "n0002").address = absl::StrCat("elsewhere:", map_.epoch);
    Next();
    EXPECT_EQ(map_.epoch, epoch + 1);
    Report("n0001", epoch, true);
    Next();
    // From here on nothing is acknowledged without it: once more, by the map that says so.
    EXPECT_EQ(Node("n0001").state, NodeState::kRepairing);
    EXPECT_TRUE(Node("n0001").joining);
    EXPECT_EQ(Node("n0001").state_epoch, map_.epoch);
    Next();
    Report("n0001", map_.epoch - 1, true);
    Next();
    EXPECT_EQ(Node("n0001").state, NodeState::kRepairing);
    Report("n0001", map_.epoch, true);
    Next();
    EXPECT_EQ(Node("n0001").state, NodeState::kLive);
    EXPECT_FALSE(Node("n0001").joining);
  }
}

TEST_F(NextMapTest, AnotherProcessRepairsThoughNobodySawTheFirstEnd) {
  Start(5);
  Report("n0001", map_.epoch, true);
  MemberOf(view_, "n0001").boot_id = "boot2";
  Next();
  EXPECT_EQ(Node("n0001").state, NodeState::kRepairing);
  MemberOf(view_, "n0001").boot_id = "boot3";
  Next();
  EXPECT_EQ(Node("n0001").state_epoch, map_.epoch);
}

TEST_F(NextMapTest, AllNodesRestarted) {
  Start(5);
  for (Member& member : view_.members) member.boot_id = "boot2";
  Next();
  for (const ClusterNode& node : map_.nodes) EXPECT_EQ(node.state, NodeState::kRepairing);
  const std::vector<uint64_t> epochs = SlotEpochs();
  map_ = Settle(map_, view_, options_);
  for (const ClusterNode& node : map_.nodes) EXPECT_EQ(node.state, NodeState::kLive);
  EXPECT_EQ(SlotEpochs(), epochs);
}

TEST_F(NextMapTest, ADeadNodeIsReplacedAtItsRanks) {
  Start(5);
  Leave(view_, "n0001");
  Next();
  PassTime();
  const ClusterMap before = map_;
  Next();
  ASSERT_GT(Incoming(), 0u);
  for (uint32_t slot = 0; slot < 64; ++slot) {
    const SlotAssignment& assignment = map_.slots[slot];
    EXPECT_EQ(assignment.replicas, before.slots[slot].replicas);
    if (assignment.incoming.empty()) continue;
    EXPECT_EQ(IdAt(slot, assignment.incoming_ranks[0]), "n0001");
    // Reports of an older map do not count.
    Report(map_.nodes[assignment.incoming[0]].id, before.epoch, true, {slot});
    EXPECT_EQ(NextMap(map_, view_, options_), map_);
  }
  const ClusterMap filling = map_;
  for (const char* what : {"joins", "takes over"}) {
    SCOPED_TRACE(what);
    ReportAll(map_, view_);
    Next();
  }
  EXPECT_EQ(map_.FindNode("n0001"), -1) << "it holds nothing any more";
  for (uint32_t slot = 0; slot < 64; ++slot) {
    for (uint32_t rank = 0; rank < 3; ++rank) {
      const std::string old = before.nodes[before.slots[slot].replicas[rank]].id;
      const SlotAssignment& was = filling.slots[slot];
      EXPECT_EQ(IdAt(slot, rank), old == "n0001" ? filling.nodes[was.incoming[0]].id : old);
    }
  }
}

TEST_F(NextMapTest, ANodeThatReturnsWhileItIsReplacedKeepsItsSlots) {
  Start(5);
  const Member member = MemberOf(view_, "n0001");
  Leave(view_, "n0001");
  Next();
  PassTime();
  Next();
  ASSERT_GT(Incoming(), 0u);
  Join(view_, member);
  Next();
  EXPECT_EQ(Incoming(), 0u);
  EXPECT_GT(SlotsOf(map_, "n0001"), 0u);
}

TEST_F(NextMapTest, AnIncomingNodeThatVanishesIsDropped) {
  const uint32_t slot = StartFilling(6);
  const std::string id = map_.nodes[map_.slots[slot].incoming[0]].id;
  Leave(view_, id);
  Next();
  for (const SlotAssignment& assignment : map_.slots) {
    for (const uint32_t node : assignment.incoming) EXPECT_NE(map_.nodes[node].id, id);
  }
  EXPECT_FALSE(map_.slots[slot].incoming.empty()) << "another one takes its place";
}

TEST_F(NextMapTest, AnIncomingNodeTakesOverOnceItIsLive) {
  const uint32_t slot = StartFilling(5);
  const std::string id = map_.nodes[map_.slots[slot].incoming[0]].id;
  MemberOf(view_, id).boot_id = "boot2";
  Next();
  ASSERT_EQ(Node(id).state, NodeState::kRepairing);
  ASSERT_FALSE(map_.slots[slot].incoming.empty());
  Report(id, map_.epoch, false, {slot});
  Next();
  EXPECT_FALSE(map_.slots[slot].incoming.empty());
  for (const bool joining : {true, false}) {
    Report(id, map_.epoch, true, {slot});
    Next();
    EXPECT_EQ(Node(id).joining, joining);
  }
  // Now that it is live it joins the slot, for which it has to be filled once more.
  EXPECT_TRUE(map_.slots[slot].joining);
  EXPECT_EQ(map_.slots[slot].epoch, map_.epoch);
  Next();
  Report(id, map_.epoch - 1, true, {slot});
  Next();
  EXPECT_FALSE(map_.slots[slot].incoming.empty());
  Report(id, map_.epoch, true, {slot});
  Next();
  EXPECT_TRUE(map_.slots[slot].incoming.empty());
  EXPECT_FALSE(map_.slots[slot].joining);
}

TEST_F(NextMapTest, WhoJoinsASlotAndLacksSomethingHasToBeFilledAgain) {
  const uint32_t slot = StartFilling(5);
  const std::string id = map_.nodes[map_.slots[slot].incoming[0]].id;
  const auto join = [&] {
    Report(id, map_.epoch, true, {slot});
    Next();
    ASSERT_TRUE(map_.slots[slot].joining);
    ASSERT_FALSE(map_.slots[slot].incoming.empty());
  };
  join();
  Report(id, map_.epoch, true, {});  // found something
  Next();
  EXPECT_FALSE(map_.slots[slot].joining);
  EXPECT_EQ(map_.slots[slot].epoch, map_.epoch);
  join();
  MemberOf(view_, id).boot_id = "boot2";  // holds nothing any more
  Next();
  EXPECT_FALSE(map_.slots[slot].joining);
}

// It is the source itself.
TEST_F(NextMapTest, AThirdReplicaIsEmptiedWhileTheOthersAreDown) {
  Start(8);
  const std::string third = IdAt(0, 2);
  Leave(view_, IdAt(0, 0));
  Leave(view_, IdAt(0, 1));
  view_.draining.insert(third);
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(SlotsOf(map_, third), 0u);
}

// With two of the usual replicas gone, what they had may come back; the third never had it.
TEST_F(NextMapTest, WithoutALiveReplicaASlotIsLeftToItsNodes) {
  Start(8);
  const SlotAssignment slot = map_.slots[0];
  const std::string first = IdAt(0, 0);
  const std::string second = IdAt(0, 1);
  Leave(view_, first);
  Leave(view_, second);
  Next();
  PassTime();
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(IdAt(0, 0), first);
  EXPECT_EQ(IdAt(0, 1), second);
  EXPECT_EQ(Node(first).state, NodeState::kDown);

  view_.removed.insert(first);
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(IdAt(0, 1), second) << "what it holds may still come back";
  view_.removed.insert(second);
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(map_.FindNode(first), -1);
  EXPECT_EQ(map_.FindNode(second), -1);
  EXPECT_EQ(map_.slots[0].replicas.size(), 3u);
}

TEST_F(NextMapTest, SlotsOfWhichNothingIsLeftGetNewNodes) {
  Start(7);
  std::vector<std::string> removed;
  for (uint32_t rank = 0; rank < 3; ++rank) removed.push_back(IdAt(0, rank));
  for (const std::string& id : removed) {
    Leave(view_, id);
    view_.removed.insert(id);
  }
  Next();
  EXPECT_TRUE(map_.slots[0].incoming.empty());
  EXPECT_EQ(map_.slots[0].epoch, map_.epoch);
  ASSERT_EQ(map_.slots[0].replicas.size(), 3u);
  for (uint32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(std::count(removed.begin(), removed.end(), IdAt(0, rank)), 0);
  }
}

TEST_F(NextMapTest, ADrainedNodeGivesItsSlotsAwayAndStays) {
  Start(5);
  view_.draining.insert("n0002");
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(SlotsOf(map_, "n0002"), 0u);
  EXPECT_TRUE(Node("n0002").draining);
  EXPECT_EQ(Node("n0002").state, NodeState::kLive);
  EXPECT_LE(WorstImbalance(map_), options_.imbalance_max);
  view_.draining.clear();
  map_ = Settle(map_, view_, options_);
  EXPECT_GT(SlotsOf(map_, "n0002"), 0u);
}

// It may come back with what only it has.
TEST_F(NextMapTest, ADrainedNodeThatIsDownIsWaitedFor) {
  Start(5);
  const Member member = MemberOf(view_, "n0002");
  Leave(view_, "n0002");
  view_.draining.insert("n0002");
  Next();
  const size_t slots = SlotsOf(map_, "n0002");
  ReportAll(map_, view_);
  Next();
  EXPECT_EQ(SlotsOf(map_, "n0002"), slots);
  Join(view_, member);
  Next();
  EXPECT_EQ(SlotsOf(map_, "n0002"), slots) << "the reports are of the time when it was down";
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(SlotsOf(map_, "n0002"), 0u);
}

TEST_F(NextMapTest, DrainingOneOfThreeLeavesTwoReplicas) {
  for (const std::string id : {"n0000", "n0001", "n0002"}) {
    SCOPED_TRACE(id);
    view_ = {.now = absl::UnixEpoch()};
    Start(3);
    view_.draining.insert(id);
    // The last replica of a slot is given up only as it starts to take another place.
    while (true) {
      ReportAll(map_, view_);
      const ClusterMap before = map_;
      Next();
      if (map_ == before) break;
      for (const SlotAssignment& slot : map_.slots) {
        EXPECT_GE(slot.replicas.size(), 2u);
        if (!slot.incoming.empty()) {
          EXPECT_EQ(slot.replicas.size(), 2u);
        }
      }
    }
    EXPECT_EQ(SlotsOf(map_, id), 0u);
    for (const SlotAssignment& slot : map_.slots) EXPECT_EQ(slot.replicas.size(), 2u);
  }
}

TEST_F(NextMapTest, ARemovedNodeDisappearsAndDoesNotGetIn) {
  Start(5);
  const Member member = MemberOf(view_, "n0002");
  view_.removed.insert("n0002");
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(SlotsOf(map_, "n0002"), 0u);
  EXPECT_GE(map_.FindNode("n0002"), 0) << "it is registered";
  Leave(view_, "n0002");
  Next();
  EXPECT_EQ(map_.FindNode("n0002"), -1);
  const ClusterMap before = map_;
  Join(view_, member);
  Next();
  EXPECT_EQ(map_, before);
}

TEST_F(NextMapTest, AtMostSoManyReplicasAreFilledAtATime) {
  options_.incoming_max = 5;
  Start(4);
  Join(view_, MakeMember("n0004"));
  Next();
  EXPECT_EQ(Incoming(), 5u);
  map_ = Settle(map_, view_, options_);  // CheckedNext looks at each
  EXPECT_LE(WorstImbalance(map_), options_.imbalance_max);
}

TEST_F(NextMapTest, WhatIsInDangerComesFirst) {
  options_.incoming_max = 1;
  Start(8);
  const std::string first = IdAt(7, 0);
  const std::string second = IdAt(7, 2);
  Leave(view_, first);
  Leave(view_, second);
  view_.draining.insert(IdAt(0, 0) == first ? IdAt(0, 1) : IdAt(0, 0));
  Next();
  PassTime();
  Next();
  ASSERT_EQ(Incoming(), 1u);
  const auto slot = std::find_if(map_.slots.begin(), map_.slots.end(),
                                 [](const SlotAssignment& s) { return !s.incoming.empty(); });
  const auto live = std::count_if(slot->replicas.begin(), slot->replicas.end(), [&](uint32_t node) {
    return map_.nodes[node].state == NodeState::kLive;
  });
  EXPECT_EQ(live, 1);
}

TEST_F(NextMapTest, NewNodesShiftIndicesButNotEpochsOfSlots) {
  Start(4);
  options_.imbalance_max = 1;  // nothing needs to move
  const std::vector<uint64_t> epochs = SlotEpochs();
  const std::string id = IdAt(0, 0);
  Join(view_, MakeMember("a"));
  Next();
  EXPECT_EQ(map_.nodes[0].id, "a");
  EXPECT_EQ(IdAt(0, 0), id);
  EXPECT_EQ(SlotEpochs(), epochs);
}

TEST_F(NextMapTest, NodesAreAsTheyRegistered) {
  Start(4);
  Member& member = MemberOf(view_, "n0001");
  member.address = "other:1";
  member.zone = "z9";
  member.capacity = 77;
  Next();
  EXPECT_EQ(Node("n0001").address, "other:1");
  EXPECT_EQ(Node("n0001").zone, "z9");
  EXPECT_EQ(Node("n0001").capacity, 77u);
  EXPECT_EQ(Node("n0001").state, NodeState::kLive);
}

TEST_F(NextMapTest, RebalanceIsToTheSlotAndOnce) {
  options_.slots = 1000;
  Start(4);
  Join(view_, MakeMember("n0004"));
  map_ = Settle(map_, view_, options_);
  EXPECT_LT(SlotsOf(map_, "n0004"), 600u);
  view_.rebalance = 1;
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(map_.rebalanced, 1u);
  for (const ClusterNode& node : map_.nodes) {
    for (uint32_t k = 1; k <= 3; ++k) EXPECT_NEAR(SlotsOf(map_, node.id, k), 200 * k, 1) << node.id;
  }
}

// Nodes register one after another; the first has everything, at the first rank.
TEST_F(NextMapTest, AClusterThatStartsWithOneNodeIsBalancedInTheEnd) {
  for (const uint32_t zones : {0u, 3u}) {
    view_ = {.now = absl::UnixEpoch()};
    const std::vector<Member> members = MakeMembers(3, zones);
    map_ = {};
    for (const Member& member : members) {
      Join(view_, member);
      map_ = Settle(map_, view_, options_);
    }
    EXPECT_LE(WorstImbalance(map_), options_.imbalance_max);
    EXPECT_EQ(SlotsNotSpread(map_, zones == 0 ? 1 : 3), 0u);
  }
}

TEST_F(NextMapTest, RegistrationsThatNoMapCanHoldDoNotCount) {
  Start(3);
  const ClusterMap before = map_;
  Join(view_, {.node_id = "", .address = "x:1"});
  Join(view_, {.node_id = "b", .address = ""});
  Next();
  EXPECT_EQ(map_, before);
  for (uint32_t i = 0; i < kClusterNodesMax; ++i) Join(view_, MakeMember(absl::StrCat("o", i)));
  const ClusterMap next = NextMap(map_, view_, options_);
  EXPECT_EQ(next.nodes.size(), kClusterNodesMax);
  EXPECT_EQ(ValidateClusterMap(next), absl::OkStatus());
}

TEST_F(NextMapTest, FewerReplicasWantedThanThereAre) {
  Start(5);
  options_.replicas = 2;
  Next();
  for (const SlotAssignment& slot : map_.slots) EXPECT_EQ(slot.replicas.size(), 2u);
  options_.replicas = 3;
  map_ = Settle(map_, view_, options_);
  for (const SlotAssignment& slot : map_.slots) EXPECT_EQ(slot.replicas.size(), 3u);
}

TEST_F(NextMapTest, AZoneIsLostAndReturns) {
  Start(6, 3);
  const std::vector<Member> members = view_.members;
  for (const Member& member : members) {
    if (member.zone == "z1") Leave(view_, member.node_id);
  }
  Next();
  PassTime();
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(SlotsNotSpread(map_, 2), 0u);
  for (const Member& member : members) {
    if (member.zone == "z1") Join(view_, member);
  }
  map_ = Settle(map_, view_, options_);
  EXPECT_EQ(SlotsNotSpread(map_, 3), 0u);
  EXPECT_LE(WorstImbalance(map_), options_.imbalance_max);
}

}  // namespace
}  // namespace attic
