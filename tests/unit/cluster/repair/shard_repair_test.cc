// Single shards, between two or three fake nodes.
#include "server/cluster/repair/shard_repair.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/unit/cluster/repair/fake_node.h"

namespace attic {
namespace {

FakeRows Rows(uint64_t first, size_t count) {
  FakeRows rows(count);
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

class ShardRepairTest : public testing::Test {
 protected:
  const std::string id_ = "s#0.0";

  static HeldShard Described() { return {.session_id = "s#0.0", .slot = 1, .replicas = 2}; }
  static void Put(FakeNode& node, const FakeRows& rows) {
    ASSERT_TRUE(node.Open(Described()));
    ASSERT_TRUE(node.AppendRows("s#0.0", 0, rows).ok());
  }
  FakeRows Mine() { return own_.Find(id_)->rows; }
  ShardFill Away() {
    HeldShard shard = Described();
    const auto held = own_.Find(id_);
    return {.shard = held == nullptr ? shard : held->described,
            .sources = {{peer_, 0, true}},
            .held = held != nullptr,
            .own_rank = 1,
            .away = true};
  }
  ShardFill Live() {
    ShardFill fill = Away();
    fill.away = false;
    return fill;
  }

  FakeClock clock_;
  FakeNode own_, other_;
  std::shared_ptr<FakePeer> peer_ = std::make_shared<FakePeer>(other_, clock_);
  ShardChanges changes_{absl::Seconds(1), [this] { return clock_.Now(); }};
  Throttle throttle_{1000, [this] { return clock_.Now(); },
                     [this](absl::Time time) {
                       clock_.AdvanceTo(time);
                       return true;
                     }};
  PullCounts counts_;
  ShardRepair repair_{
      own_, changes_, throttle_, counts_, {.block_tokens = kFakeBlockTokens, .clock = [this] {
                                             return clock_.Now();
                                           }}};
};

TEST_F(ShardRepairTest, ImportsWhatIsNotHeld) {
  Put(other_, Rows(0, 45));
  const ShardOutcome outcome = repair_.Fill(Away());
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.imported);
  EXPECT_EQ(Mine(), Rows(0, 45));
  EXPECT_EQ(counts_.shards, 1);
}

TEST_F(ShardRepairTest, CopiesRowsWhereTheSnapshotIsOfOtherOptions) {
  Put(other_, Rows(0, 45));
  own_.SetOtherOptions(true);
  const ShardOutcome outcome = repair_.Fill(Away());
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.imported && outcome.pulled);
  EXPECT_EQ(Mine(), Rows(0, 45));
  EXPECT_EQ(own_.Find(id_)->described, other_.Find(id_)->described);
}

TEST_F(ShardRepairTest, WhatIsClosedWhileItsRowsAreCopiedStaysClosed) {
  Put(other_, Rows(0, 45));
  own_.SetOtherOptions(true);
  peer_->on_call = [&](const std::string&) {
    if (own_.Find(id_) != nullptr) other_.Close(id_).IgnoreError();
  };
  const ShardOutcome outcome = repair_.Fill(Away());
  EXPECT_TRUE(outcome.imported);
  EXPECT_EQ(own_.Find(id_), nullptr) << outcome.status;
}

TEST_F(ShardRepairTest, PullsBehindAnEqualPrefixNoFasterThanAllowed) {
  Put(own_, Rows(0, 13));
  Put(other_, Rows(0, 4000));
  const absl::Time begin = clock_.Now();
  ASSERT_TRUE(repair_.Fill(Live()).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 4000));
  const double seconds = absl::ToDoubleSeconds(clock_.Now() - begin);
  const double bytes = static_cast<double>(counts_.bytes);
  EXPECT_GE(bytes, (4000 - 13) * sizeof(uint64_t));
  EXPECT_GE(seconds, bytes / 1000 - 0.1);  // but for the last batch
  EXPECT_LE(seconds, bytes / 1000 + 0.1);
}

TEST_F(ShardRepairTest, ReplacesBlocksThatDifferWhileAway) {
  FakeRows rows = Rows(0, 40);
  Put(other_, rows);
  rows[19] = 7;
  Put(own_, rows);
  const ShardOutcome outcome = repair_.Fill(Away());
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Mine(), Rows(0, 40));
}

TEST_F(ShardRepairTest, DifferingRowsBehindTheLastBlockAreFoundAtAnyLength) {
  for (const size_t mine : {11u, 14u, 16u, 30u}) {
    for (const size_t theirs : {11u, 14u, 16u, 30u}) {
      own_.Lose();
      other_.Lose();
      FakeRows rows = Rows(0, mine);
      rows[10] = 99;
      Put(own_, rows);
      Put(other_, Rows(0, theirs));
      const ShardOutcome outcome = repair_.Fill(Away());
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(Mine(), Rows(0, theirs)) << mine << " here, " << theirs << " there";
    }
  }
}

TEST_F(ShardRepairTest, ALiveNodeReportsAConflictAndSettlesItForTheLowestRank) {
  FakeRows rows = Rows(0, 40);
  rows[3] = 7;
  Put(own_, rows);
  Put(other_, Rows(0, 40));
  ShardOutcome outcome = repair_.Fill(Live());
  EXPECT_TRUE(outcome.conflict);
  EXPECT_TRUE(absl::IsDataLoss(outcome.status)) << outcome.status;
  EXPECT_EQ(Mine(), rows);
  ShardFill fill = Live();
  fill.settle_conflicts = true;
  fill.own_rank = 0;
  fill.sources[0].rank = 1;
  EXPECT_TRUE(repair_.Fill(fill).conflict);
  EXPECT_EQ(Mine(), rows);
  fill.own_rank = 1;
  fill.sources[0].rank = 0;
  ASSERT_TRUE(repair_.Fill(fill).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 40));
}

TEST_F(ShardRepairTest, ALiveNodeKeepsWhatOthersLack) {
  Put(own_, Rows(0, 40));
  Put(other_, Rows(0, 20));
  ASSERT_TRUE(repair_.Fill(Live()).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 40));
}

TEST_F(ShardRepairTest, SurplusIsCutWhenAskedFor) {
  Put(own_, Rows(0, 40));
  Put(other_, Rows(0, 20));
  ShardFill fill = Away();
  fill.surplus_end = 40;
  EXPECT_TRUE(repair_.Fill(fill).surplus);
  EXPECT_EQ(Mine(), Rows(0, 40));
  fill.cut_surplus = true;
  ASSERT_TRUE(repair_.Fill(fill).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 20));
}

TEST_F(ShardRepairTest, WrongBytesAreFoundAndPulledAgain) {
  Put(own_, Rows(0, 16));
  Put(other_, Rows(0, 100));
  int calls = 0;
  peer_->fault = [&] { return ++calls == 2 ? Fault::kWrongBytes : Fault::kNone; };
  ASSERT_TRUE(repair_.Fill(Live()).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 100));
  ASSERT_TRUE(own_.Truncate(id_, 96).ok());
  peer_->fault = [] { return Fault::kWrongBytes; };
  EXPECT_TRUE(repair_.Fill(Live()).conflict);
  EXPECT_EQ(Mine(), Rows(0, 96));
}

TEST_F(ShardRepairTest, NothingIsTruncatedUnderACaller) {
  // Truncated here, and not yet there, while rows are on their way.
  Put(own_, Rows(0, 5));
  Put(other_, Rows(0, 30));
  bool done = false;
  peer_->on_call = [&](const std::string&) {
    if (done || own_.Find(id_)->rows.size() < 10) return;
    done = true;
    ShardChanges::Change change(changes_, {id_});
    ASSERT_TRUE(own_.Truncate(id_, 2).ok());
  };
  EXPECT_TRUE(absl::IsAborted(repair_.Fill(Live()).status));
  ASSERT_TRUE(done);
  EXPECT_EQ(Mine(), Rows(0, 2));
  EXPECT_TRUE(absl::IsAborted(repair_.Fill(Live()).status));
  EXPECT_EQ(Mine(), Rows(0, 2));
}

TEST_F(ShardRepairTest, WhatIsClosedDuringItsImportStaysClosed) {
  Put(other_, Rows(0, 30));
  peer_->on_call = [&](const std::string&) {
    ShardChanges::Change change(changes_, {id_});
    other_.Close(id_).IgnoreError();
  };
  EXPECT_FALSE(repair_.Fill(Away()).imported);
  EXPECT_EQ(own_.Find(id_), nullptr);
}

TEST_F(ShardRepairTest, APeerThatHangsIsGivenUp) {
  Put(own_, Rows(0, 5));
  Put(other_, Rows(0, 30));
  peer_->fault = [] { return Fault::kHang; };
  const absl::Time begin = clock_.Now();
  EXPECT_TRUE(absl::IsDeadlineExceeded(repair_.Fill(Live()).status));
  EXPECT_LE(clock_.Now() - begin, absl::Seconds(21));
}

TEST_F(ShardRepairTest, OnlyWhatIsHeldElsewhereIsDropped) {
  Put(own_, Rows(0, 20));
  const HeldShard shard = own_.Find(id_)->described;
  EXPECT_FALSE(repair_.Drop(shard, {peer_}).ok());
  Put(other_, Rows(0, 19));
  EXPECT_TRUE(absl::IsFailedPrecondition(repair_.Drop(shard, {peer_})));
  other_.Lose();
  FakeRows rows = Rows(0, 20);
  rows[4] = 99;
  Put(other_, rows);
  EXPECT_TRUE(absl::IsFailedPrecondition(repair_.Drop(shard, {peer_})));
  rows[4] = 4;
  rows[18] = 99;  // in no whole block
  other_.Lose();
  Put(other_, rows);
  EXPECT_TRUE(absl::IsFailedPrecondition(repair_.Drop(shard, {peer_})));
  peer_->fault = [] { return Fault::kUnavailable; };
  EXPECT_TRUE(absl::IsUnavailable(repair_.Drop(shard, {peer_})));
  ASSERT_NE(own_.Find(id_), nullptr);
  peer_->fault = [] { return Fault::kNone; };
  other_.Lose();
  Put(other_, Rows(0, 20));
  ASSERT_TRUE(repair_.Drop(shard, {peer_}).ok());
  EXPECT_EQ(own_.Find(id_), nullptr);
  EXPECT_EQ(counts_.dropped, 1);
}

TEST_F(ShardRepairTest, OnlyWhatNobodyHoldsIsClosed) {
  Put(own_, Rows(0, 20));
  const HeldShard shard = own_.Find(id_)->described;
  peer_->fault = [] { return Fault::kUnavailable; };
  EXPECT_FALSE(repair_.Close(shard, {peer_}).ok());
  peer_->fault = [] { return Fault::kNone; };
  Put(other_, {});
  EXPECT_FALSE(repair_.Close(shard, {peer_}).ok());
  ASSERT_NE(own_.Find(id_), nullptr);
  other_.Lose();
  EXPECT_TRUE(repair_.Close(shard, {peer_}).ok());
  EXPECT_EQ(own_.Find(id_), nullptr);
}

TEST_F(ShardRepairTest, WithoutAnyLiveReplicaTheLongestWinsAndTheLowestRankWhereTheyDiffer) {
  FakeRows rows = Rows(0, 40);
  rows[3] = 7;
  Put(own_, rows);
  Put(other_, Rows(0, 50));
  ShardFill fill = Away();
  fill.sources = {{peer_, 1, false}};
  fill.own_rank = 0;
  ASSERT_TRUE(repair_.Fill(fill).status.ok());
  EXPECT_EQ(Mine(), rows);
  fill.sources = {{peer_, 0, false}};
  fill.own_rank = 1;
  ASSERT_TRUE(repair_.Fill(fill).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 50));
  ASSERT_TRUE(own_.AppendRows(id_, 50, Rows(50, 9)).ok());
  ASSERT_TRUE(repair_.Fill(fill).status.ok());
  EXPECT_EQ(Mine(), Rows(0, 59));
}

}  // namespace
}  // namespace attic
