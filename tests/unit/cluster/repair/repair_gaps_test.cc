// What a node lacks at the moment at which it is called filled, and single shards.
#include <gtest/gtest.h>

#include <numeric>

#include "server/cluster/repair/repair_pass.h"
#include "tests/unit/cluster/repair/fake_node.h"

namespace attic {
namespace {

FakeRows Rows(uint64_t first, size_t count) {
  FakeRows rows(count);
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

// Node a, whose passes run, b, and c, which holds no slot.
class RepairGapsTest : public testing::Test {
 protected:
  const std::string id_ = "s#0.0";

  RepairGapsTest() {
    for (FakeNode* node : {&own_, &other_}) {
      EXPECT_TRUE(node->Open({.session_id = id_, .slot = 1, .replicas = 2}));
      EXPECT_TRUE(node->AppendRows(id_, 0, Rows(0, 20)).ok());
    }
  }
  static std::shared_ptr<const ClusterMap> Map(uint64_t epoch, NodeState mine) {
    auto map = std::make_shared<ClusterMap>();
    *map = {.cluster = "c",
            .epoch = epoch,
            .nodes = {{.id = "a", .address = "x:1", .state = mine},
                      {.id = "b", .address = "x:2"},
                      {.id = "c", .address = "x:3"}},
            .slots = std::vector<SlotAssignment>(4, {.replicas = {0, 1}, .epoch = 1})};
    return map;
  }
  RepairOptions Options() {
    return {.parallel_pulls = 1,
            .shard = {.block_tokens = kFakeBlockTokens},
            .clock = [this] { return clock_.Now(); },
            .wait_until =
                [this](absl::Time time) {
                  clock_.AdvanceTo(time);
                  return true;
                }};
  }
  std::shared_ptr<FakePeer> PeerOf(const std::string& id) { return id == "b" ? b_ : c_; }
  FakeRows Mine() { return own_.Find(id_)->rows; }
  // As of map 4, in which a is repairing.
  void Synchronise() {
    std::optional<SyncReport> report;
    for (int i = 0; i < 3; ++i) report = pass_.Run({.map = Map(4, NodeState::kRepairing)}).report;
    ASSERT_TRUE(report.has_value() && report->node_synced);
  }
  // A row that a has not got.
  void AppendThereOnly() {
    const uint64_t held = other_.Find(id_)->rows.size();
    ASSERT_TRUE(other_.AppendRows(id_, static_cast<int64_t>(held), Rows(held, 1)).ok());
  }

  FakeClock clock_;
  FakeNode own_, other_, third_;
  std::shared_ptr<FakePeer> b_ = std::make_shared<FakePeer>(other_, clock_);
  std::shared_ptr<FakePeer> c_ = std::make_shared<FakePeer>(third_, clock_);
  ShardChanges changes_{absl::Seconds(1), [this] { return clock_.Now(); }};
  RepairPass pass_{"a", own_, changes_, [this](const ClusterNode& node) { return PeerOf(node.id); },
                   Options()};
};

TEST_F(RepairGapsTest, ANodeThatBecameLiveComparesAsSoonAsThePeersKnow) {
  Synchronise();
  AppendThereOnly();  // by a writer who did not wait for a
  b_->epoch = 4;
  const absl::Time begin = clock_.Now();
  b_->on_inventory = [&] {
    if (clock_.Now() >= begin + absl::Milliseconds(250)) b_->epoch = 5;
  };
  const PassResult result = pass_.Run({.map = Map(5, NodeState::kLive)});
  EXPECT_EQ(Mine(), Rows(0, 21));
  EXPECT_LT(clock_.Now() - begin, absl::Milliseconds(600));
  EXPECT_TRUE(result.report->node_synced || result.again_at <= clock_.Now());
}

TEST_F(RepairGapsTest, APeerThatWasAwayIsAskedAtOnceByANewMap) {
  Synchronise();
  b_->fault = [] { return Fault::kUnavailable; };
  for (int i = 0; i < 8; ++i) {
    pass_.Run({.map = Map(4, NodeState::kRepairing)});
    clock_.Advance(absl::Seconds(40));
  }
  pass_.Run({.map = Map(4, NodeState::kRepairing)});
  b_->fault = [] { return Fault::kNone; };
  AppendThereOnly();
  pass_.Run({.map = Map(4, NodeState::kRepairing)});
  EXPECT_EQ(Mine(), Rows(0, 20));  // it failed a moment ago
  pass_.Run({.map = Map(5, NodeState::kLive)});
  EXPECT_EQ(Mine(), Rows(0, 21));
}

TEST_F(RepairGapsTest, AGapIsLookedForAtTheReplicasOfItsShardAlone) {
  Synchronise();
  pass_.Run({.map = Map(5, NodeState::kLive)});
  AppendThereOnly();
  const int inventories = b_->inventories;
  const GapResult result = pass_.RunGaps({.map = Map(5, NodeState::kLive), .gaps = {id_}});
  EXPECT_EQ(Mine(), Rows(0, 21));
  EXPECT_TRUE(result.left.empty());
  EXPECT_FALSE(result.lacked);  // the node follows nobody
  EXPECT_EQ(b_->inventories, inventories);
  EXPECT_EQ(b_->finds, 1);
  EXPECT_EQ(c_->finds + c_->inventories, 0);
}

TEST_F(RepairGapsTest, AShardThatIsNotHereIsLookedForEverywhere) {
  Synchronise();
  pass_.Run({.map = Map(5, NodeState::kLive)});
  ASSERT_TRUE(own_.Close(id_).ok());
  // Of c, which is no replica, nothing is believed.
  ASSERT_TRUE(third_.Open({.session_id = "t#0.0", .slot = 1, .replicas = 2}));
  const GapResult result =
      pass_.RunGaps({.map = Map(5, NodeState::kLive), .gaps = {id_, "t#0.0", "none#1.0"}});
  EXPECT_TRUE(result.left.empty());
  EXPECT_EQ(Mine(), Rows(0, 20));
  EXPECT_EQ(own_.Find("t#0.0"), nullptr);
  EXPECT_EQ(b_->finds, 1);
  EXPECT_EQ(c_->finds, 1);
}

TEST_F(RepairGapsTest, WhatDoesNotAnswerIsAskedAgain) {
  Synchronise();
  pass_.Run({.map = Map(5, NodeState::kLive)});
  AppendThereOnly();
  b_->fault = [] { return Fault::kUnavailable; };
  const PassRequest request{.map = Map(5, NodeState::kLive), .gaps = {id_}};
  GapResult result = pass_.RunGaps(request);
  EXPECT_EQ(result.left, request.gaps);
  EXPECT_GT(result.retry_at, clock_.Now());
  EXPECT_LE(result.retry_at, clock_.Now() + absl::Seconds(1));
  b_->fault = [] { return Fault::kNone; };
  clock_.AdvanceTo(result.retry_at);
  result = pass_.RunGaps(request);
  EXPECT_TRUE(result.left.empty());
  EXPECT_EQ(Mine(), Rows(0, 21));
}

TEST_F(RepairGapsTest, WhatAGapOfARepairingNodeWasIsSaid) {
  Synchronise();
  const PassRequest request{.map = Map(4, NodeState::kRepairing), .gaps = {id_}};
  EXPECT_FALSE(pass_.RunGaps(request).lacked);
  AppendThereOnly();
  EXPECT_TRUE(pass_.RunGaps(request).lacked);
  EXPECT_EQ(Mine(), Rows(0, 21));
  EXPECT_FALSE(pass_.RunGaps(request).lacked);
}

}  // namespace
}  // namespace attic
