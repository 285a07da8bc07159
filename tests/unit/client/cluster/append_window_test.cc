#include "client/cpp/cluster/append_window.h"

#include <gtest/gtest.h>

namespace attic {
namespace {

using Stage = ShardWrite::Stage;

// One write to one slot of three replicas, "a", "b" and "c".
class AppendWindowTest : public ::testing::Test {
 protected:
  AppendWindowTest() {
    for (const char* id : {"a", "b", "c"}) map_.nodes.push_back({.id = id, .address = id});
    map_.slots = {{.replicas = {0, 1, 2}, .incoming = {}, .epoch = 1}};
    lane_.writes = {write_};
    UsePolicy(AckPolicy::kAll);
  }
  void UsePolicy(AckPolicy policy) {
    auto info = std::make_shared<SessionInfo>();
    info->replication = {.replicas = 3, .ack_policy = policy};
    write_->info = info;
  }
  void Hold(const std::string& node, int64_t watermark) {
    write_->replicas[node] = {.stage = Stage::kHeld,
                              .ack = {.watermark = watermark, .durable_watermark = watermark - 1}};
  }
  void Lag(const std::string& node, absl::Status refusal = absl::OutOfRangeError("gap")) {
    lane_.nodes[node] = {.lagging = true, .refusal = std::move(refusal)};
  }
  bool Acknowledged() { return Acknowledge(map_, lane_, *write_); }

  ClusterMap map_{.cluster = "c", .epoch = 1};
  std::shared_ptr<ShardWrite> write_ = std::make_shared<ShardWrite>();
  ShardLane lane_;
};

TEST_F(AppendWindowTest, AllIsEveryReplicaThatIsNotDown) {
  Hold("a", 10);
  Hold("b", 12);
  EXPECT_FALSE(Acknowledged());
  EXPECT_TRUE(IsAwaited(map_, lane_, *write_));
  map_.nodes[2].state = NodeState::kDown;
  EXPECT_TRUE(Acknowledged());
  EXPECT_EQ(write_->ack.watermark, 10);
  EXPECT_EQ(write_->ack.durable_watermark, 9);
  EXPECT_FALSE(IsAwaited(map_, lane_, *write_));
  EXPECT_FALSE(Acknowledged());  // only once
}

TEST_F(AppendWindowTest, ALaggingReplicaIsWaitedForWhenItIsCalledLive) {
  Hold("a", 10);
  Hold("b", 10);
  Lag("c");
  EXPECT_FALSE(Acknowledged());
  map_.nodes[2].state = NodeState::kRepairing;
  EXPECT_TRUE(Acknowledged());
}

TEST_F(AppendWindowTest, QuorumCountsThoseThatAreDown) {
  UsePolicy(AckPolicy::kQuorum);
  map_.nodes[1].state = map_.nodes[2].state = NodeState::kDown;
  Hold("a", 10);
  EXPECT_FALSE(Acknowledged());
  map_.nodes[1].state = NodeState::kLive;
  Hold("b", 20);
  EXPECT_TRUE(Acknowledged());
  EXPECT_EQ(write_->ack.watermark, 10);
}

TEST_F(AppendWindowTest, OneIsTheFurthest) {
  UsePolicy(AckPolicy::kOne);
  EXPECT_FALSE(Acknowledged());
  Hold("a", 10);
  Hold("c", 30);
  EXPECT_TRUE(Acknowledged());
  EXPECT_EQ(write_->ack.watermark, 30);
  EXPECT_TRUE(IsAwaited(map_, lane_, *write_));  // "b" still gets it
}

TEST_F(AppendWindowTest, WhatIsHeldByNodesThatDoNotCountDoesNotCount) {
  map_.slots[0].replicas = {0, 1};
  Hold("a", 10);
  Hold("c", 10);
  EXPECT_FALSE(Acknowledged());
  Hold("b", 10);
  EXPECT_TRUE(Acknowledged());
}

TEST_F(AppendWindowTest, NothingIsAcknowledgedWithoutWhoJoins) {
  map_.nodes.push_back({.id = "d", .address = "d"});
  map_.slots[0].incoming = {3};
  map_.slots[0].incoming_ranks = {0};
  map_.slots[0].joining = true;
  for (const AckPolicy policy : {AckPolicy::kAll, AckPolicy::kOne}) {
    UsePolicy(policy);
    for (const char* id : {"a", "b", "c"}) Hold(id, 10);
    lane_.nodes.clear();
    EXPECT_FALSE(Acknowledged());
    EXPECT_TRUE(IsAwaited(map_, lane_, *write_));
    Lag("d");
    EXPECT_FALSE(Acknowledged());
  }
  // Nor by it alone.
  *write_ = {};
  UsePolicy(AckPolicy::kOne);
  Hold("d", 10);
  EXPECT_FALSE(Acknowledged());
  Hold("b", 10);
  EXPECT_TRUE(Acknowledged());
}

TEST_F(AppendWindowTest, HopelessIsWhatAllReplicasRefuse) {
  for (const char* id : {"a", "b", "c"}) {
    EXPECT_TRUE(Hopeless(map_, lane_, *write_).ok());
    Lag(id, absl::NotFoundError("no session"));
  }
  EXPECT_TRUE(absl::IsNotFound(Hopeless(map_, lane_, *write_)));
  Lag("b");
  EXPECT_TRUE(absl::IsOutOfRange(Hopeless(map_, lane_, *write_)));
  map_.nodes[0].state = NodeState::kDown;  // and may hold what the others lack
  EXPECT_TRUE(Hopeless(map_, lane_, *write_).ok());
}

// As a node does that is being filled, or does not know the newest map yet: two replicas were away,
// one after the other, and the one that holds all is not up to date with the map.
TEST_F(AppendWindowTest, WhatOneReplicaRefusesInPassingIsNotHopeless) {
  for (const char* id : {"a", "b", "c"}) Lag(id);
  EXPECT_FALSE(Hopeless(map_, lane_, *write_).ok());
  map_.nodes[1].state = NodeState::kRepairing;
  Lag("b", absl::UnavailableError("does not know the map yet"));
  EXPECT_TRUE(Hopeless(map_, lane_, *write_).ok());
}

TEST_F(AppendWindowTest, AWriteBehindOthersIsNotHopeless) {
  const auto behind = std::make_shared<ShardWrite>();
  behind->info = write_->info;
  lane_.writes.push_back(behind);
  for (const char* id : {"a", "b", "c"}) Lag(id);
  EXPECT_TRUE(Hopeless(map_, lane_, *behind).ok());
  for (const char* id : {"a", "b", "c"}) Hold(id, 5);
  EXPECT_FALSE(Hopeless(map_, lane_, *behind).ok());
}

}  // namespace
}  // namespace attic
