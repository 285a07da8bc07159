// The gate against a plain statement of its rules, over all small cases.
#include "server/cluster/slot_gate.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/manual_membership.h"

namespace attic {
namespace {

constexpr uint64_t kEpoch = 5;

// Three nodes a, b, c; one slot.
ClusterMap MapOf(SlotAssignment slot, NodeState state) {
  ClusterMap map{.cluster = "test", .epoch = kEpoch, .replicas_default = 2};
  for (const char* id : {"a", "b", "c"}) map.nodes.push_back({.id = id, .address = "host:1"});
  map.nodes[1].state = state;
  map.slots = {std::move(slot)};
  return map;
}

class SlotGateTest : public ::testing::Test {
 protected:
  SlotGateTest() { gate_.Join(membership_); }

  const std::shared_ptr<ManualMembership> membership_ = std::make_shared<ManualMembership>("b");
  std::vector<uint64_t> wanted_;
  SlotGate gate_{true, "boot", [this](uint64_t epoch) { wanted_.push_back(epoch); }};
};

struct Case {
  SlotAssignment slot;
  NodeState state;
  NodeState peer;       // of node a, which is so since...
  uint64_t peer_epoch;  // ...the map of this epoch
  uint64_t sender;
  uint32_t replicas;
  bool write;

  std::string Name() const {
    return absl::StrCat("replicas ", slot.replicas.size(), " incoming ", slot.incoming.size(),
                        " changed ", slot.epoch, " state ", NodeStateName(state), " a ",
                        NodeStateName(peer), " since ", peer_epoch, " sender ", sender, " R ",
                        replicas, write ? " write" : " read");
  }
  bool Uses(uint32_t node) const {
    const size_t used = replicas == 0 ? 2 : replicas;
    for (size_t i = 0; i < slot.replicas.size() && i < used; ++i) {
      if (slot.replicas[i] == node) return true;
    }
    return false;
  }
  bool Stale() const {
    if (sender > kEpoch) return false;
    if (sender == 0) return write;
    const bool came_back = Uses(0) && peer != NodeState::kDown && sender < peer_epoch;
    return sender < slot.epoch || (write && came_back);
  }
  absl::StatusCode Expected() const {
    if (sender > kEpoch) return absl::StatusCode::kUnavailable;
    if (Stale() || state == NodeState::kDown) return absl::StatusCode::kAborted;
    bool here = Uses(1);
    for (const uint32_t node : slot.incoming) here |= write && node == 1;
    if (!here) return absl::StatusCode::kAborted;
    // Node c is always live.
    const bool other = Uses(2) || (Uses(0) && peer == NodeState::kLive);
    const bool unfilled = !write && state == NodeState::kRepairing && other;
    return unfilled ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk;
  }
};

std::vector<Case> AllCases() {
  // Node b, index 1, in every place and in none.
  const std::vector<SlotAssignment> slots = {{.replicas = {}},
                                             {.replicas = {0}},
                                             {.replicas = {1}},
                                             {.replicas = {0, 2}},
                                             {.replicas = {1, 0}},
                                             {.replicas = {0, 1}},
                                             {.replicas = {0, 2, 1}},
                                             {.replicas = {0, 2}, .incoming = {1}},
                                             {.replicas = {1, 2}, .incoming = {0}}};
  std::vector<Case> cases;
  for (SlotAssignment slot : slots) {
    for (const uint64_t changed : {1u, 3u, 5u}) {
      slot.epoch = changed;
      for (const NodeState state : {NodeState::kLive, NodeState::kRepairing, NodeState::kDown}) {
        for (uint64_t sender = 0; sender <= kEpoch + 1; ++sender) {
          for (uint32_t replicas = 0; replicas <= 3; ++replicas) {
            for (const bool write : {false, true}) {
              for (const NodeState peer :
                   {NodeState::kLive, NodeState::kRepairing, NodeState::kDown}) {
                for (const uint64_t peer_epoch : {1u, 4u}) {
                  cases.push_back({slot, state, peer, peer_epoch, sender, replicas, write});
                }
              }
            }
          }
        }
      }
    }
  }
  return cases;
}

TEST_F(SlotGateTest, AllSmallCases) {
  size_t passed = 0, refused = 0;
  for (const Case& c : AllCases()) {
    ClusterMap map = MapOf(c.slot, c.state);
    map.nodes[0].state = c.peer;
    map.nodes[0].state_epoch = c.peer_epoch;
    membership_->Set(map);
    const Placement placement{.slot = 0, .key = "k", .replication = {.replicas = c.replicas}};
    const auto pass = gate_.Admit(c.sender);
    absl::Status status = pass.status();
    if (pass.ok()) {
      EXPECT_EQ(pass->epoch(), kEpoch);
      status = c.write ? pass->CheckWrite(placement) : pass->CheckRead(placement);
    }
    ASSERT_EQ(status.code(), c.Expected()) << c.Name() << ": " << status;
    ++(status.ok() ? passed : refused);
    ASSERT_EQ(absl::StartsWith(status.message(), "stale epoch: "), c.Stale()) << c.Name();
  }
  EXPECT_GT(passed, 100u);
  uint64_t counted = 0;
  for (const GateRefusal why : {GateRefusal::kNoMap, GateRefusal::kBehind, GateRefusal::kStaleEpoch,
                                GateRefusal::kNotHere}) {
    counted += gate_.refusals(why);
  }
  EXPECT_EQ(counted, refused);
}

TEST_F(SlotGateTest, ANewerEpochIsAskedFor) {
  membership_->Set(MapOf({.replicas = {1}}, NodeState::kLive));
  EXPECT_TRUE(gate_.Admit(kEpoch).ok());
  EXPECT_TRUE(wanted_.empty());
  EXPECT_TRUE(absl::IsUnavailable(gate_.Admit(kEpoch + 2).status()));
  EXPECT_EQ(wanted_, std::vector<uint64_t>{kEpoch + 2});
  EXPECT_EQ(gate_.refusals(GateRefusal::kBehind), 1u);
}

TEST_F(SlotGateTest, NothingPassesBeforeTheFirstMap) {
  EXPECT_TRUE(absl::IsUnavailable(gate_.Admit(0).status()));
  EXPECT_TRUE(absl::IsUnavailable(gate_.Admit(1).status()));
  EXPECT_FALSE(gate_.ready());
  EXPECT_EQ(gate_.epoch(), 0u);
  SlotGate unjoined(true, "boot", nullptr);
  EXPECT_TRUE(absl::IsUnavailable(unjoined.Admit(0).status()));
  EXPECT_FALSE(unjoined.ready());
}

TEST_F(SlotGateTest, AMapWithoutThisProcess) {
  ClusterMap map = MapOf({.replicas = {1}}, NodeState::kLive);
  map.nodes[1].boot_id = "another";
  membership_->Set(map);
  EXPECT_TRUE(absl::IsUnavailable(gate_.Admit(kEpoch).status()));
  EXPECT_FALSE(gate_.ready());
  map.nodes[1].boot_id = "boot";
  membership_->Set(map);
  EXPECT_TRUE(gate_.Admit(kEpoch).ok());
  EXPECT_TRUE(gate_.ready());
  map.nodes[1].id = "bb";
  membership_->Set(map);
  EXPECT_TRUE(absl::IsAborted(gate_.Admit(kEpoch).status()));
  EXPECT_FALSE(gate_.ready());
}

TEST_F(SlotGateTest, ReadyMeansLive) {
  for (const NodeState state : {NodeState::kLive, NodeState::kRepairing, NodeState::kDown}) {
    membership_->Set(MapOf({.replicas = {1}}, state));
    EXPECT_EQ(gate_.ready(), state == NodeState::kLive);
  }
}

TEST_F(SlotGateTest, SlotsTheClusterHasNot) {
  membership_->Set(MapOf({.replicas = {1}}, NodeState::kLive));
  const auto pass = gate_.Admit(kEpoch);
  ASSERT_TRUE(pass.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(pass->CheckWrite({.slot = 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(pass->CheckRead({.slot = 1})));
}

TEST_F(SlotGateTest, OnlyALiveNodeAndItsMapSayThatThereIsNoSession) {
  const absl::Status none = absl::NotFoundError("none");
  for (const NodeState state : {NodeState::kLive, NodeState::kRepairing}) {
    membership_->Set(MapOf({.replicas = {1}}, state));
    for (uint64_t sender = 0; sender <= kEpoch; ++sender) {
      const auto pass = gate_.Admit(sender);
      ASSERT_TRUE(pass.ok());
      const absl::StatusCode expected = sender < kEpoch ? absl::StatusCode::kAborted
                                        : state == NodeState::kLive
                                            ? absl::StatusCode::kNotFound
                                            : absl::StatusCode::kUnavailable;
      EXPECT_EQ(pass->Missing(none).code(), expected) << sender << " " << NodeStateName(state);
    }
  }
}

TEST(SlotGateOfNoCluster, EverythingPassesFromWhoKnowsNoEpoch) {
  SlotGate gate;
  EXPECT_TRUE(gate.ready());
  EXPECT_FALSE(gate.clustered());
  const auto pass = gate.Admit(0);
  ASSERT_TRUE(pass.ok());
  EXPECT_TRUE(pass->CheckWrite({.slot = 77}).ok());
  EXPECT_TRUE(pass->CheckRead({.slot = 77}).ok());
  EXPECT_TRUE(absl::IsNotFound(pass->Missing(absl::NotFoundError("none"))));
  EXPECT_TRUE(absl::IsFailedPrecondition(gate.Admit(1).status()));
}

Placement InSlot0() { return {.slot = 0, .replication = {.replicas = 2}}; }

ClusterMap MapOfEpoch(uint64_t epoch) {
  ClusterMap map = MapOf({.replicas = {0, 1}, .epoch = 1}, NodeState::kLive);
  map.epoch = epoch;
  return map;
}

TEST_F(SlotGateTest, WritesAreUnderWayWhileTheirPassLives) {
  membership_->Set(MapOfEpoch(5));
  EXPECT_TRUE(gate_.Settled(6));
  {
    const auto pass = gate_.Admit(5);
    ASSERT_TRUE(pass.ok());
    EXPECT_TRUE(pass->CheckRead(InSlot0()).ok());
    EXPECT_TRUE(gate_.Settled(6));
    EXPECT_TRUE(pass->CheckWrite(InSlot0()).ok());
    EXPECT_TRUE(pass->CheckWrite(InSlot0()).ok());
    EXPECT_TRUE(gate_.Settled(5));
    EXPECT_FALSE(gate_.Settled(6));
    membership_->Set(MapOfEpoch(6));
    EXPECT_FALSE(gate_.Settled(6));
  }
  EXPECT_TRUE(gate_.Settled(6));
}

TEST_F(SlotGateTest, AWriteLetInByAnOlderMapIsRefused) {
  membership_->Set(MapOfEpoch(5));
  const auto pass = gate_.Admit(5);
  ASSERT_TRUE(pass.ok());
  membership_->Set(MapOfEpoch(6));
  const absl::Status status = pass->CheckWrite(InSlot0());
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_TRUE(absl::StartsWith(status.message(), "stale epoch"));
  EXPECT_TRUE(gate_.Settled(6));
  EXPECT_TRUE(pass->CheckRead(InSlot0()).ok());
}

// What writers do after a map was known and nothing older under way, they do by that map.
TEST_F(SlotGateTest, NothingComesBehindASettledEpoch) {
  constexpr uint64_t kEpochs = 300;
  membership_->Set(MapOfEpoch(1));
  std::array<std::atomic<uint64_t>, kEpochs + 1> applied{};
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int i = 0; i < 3; ++i) {
    writers.emplace_back([&] {
      while (!stop) {
        const auto pass = gate_.Admit(1);
        ASSERT_TRUE(pass.ok());
        if (pass->CheckWrite(InSlot0()).ok()) ++applied[pass->epoch()];
      }
    });
  }
  std::vector<uint64_t> seen(kEpochs + 1);
  for (uint64_t epoch = 2; epoch <= kEpochs; ++epoch) {
    while (applied[epoch - 1] == 0) std::this_thread::yield();
    membership_->Set(MapOfEpoch(epoch));
    while (!gate_.Settled(epoch)) std::this_thread::yield();
    seen[epoch - 1] = applied[epoch - 1];
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
  for (uint64_t epoch = 1; epoch < kEpochs; ++epoch) {
    EXPECT_EQ(applied[epoch], seen[epoch]) << epoch;
  }
}

}  // namespace
}  // namespace attic
