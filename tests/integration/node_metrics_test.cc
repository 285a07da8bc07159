// What a node counts of the calls of its cluster's clients and nodes.
#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "tests/integration/node_service_fixture.h"

namespace attic {
namespace {

class NodeMetricsTest : public NodeServiceTest {
 protected:
  uint64_t Count(Method method, absl::StatusCode code = absl::StatusCode::kOk) {
    return server_->calls().calls(method)[static_cast<size_t>(code)];
  }
  uint64_t Timed(CallKind kind) {
    const auto counts = server_->calls().durations(kind).counts;
    return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  }
  uint64_t Refused(GateRefusal why) {
    return server_->AsNode()->refusals[static_cast<size_t>(why)];
  }
};

TEST_F(NodeMetricsTest, CallsOfAMessageCountByTheirMethods) {
  v1::ShardCalls calls;
  calls.set_epoch(kEpoch);
  *calls.add_calls()->mutable_open() = OpenShard("book");
  *calls.add_calls()->mutable_open() = OpenShard("map");
  calls.add_calls()->mutable_describe()->set_session_id(ShardOf("none"));
  calls.add_calls()->mutable_close()->set_session_id(ShardOf("none"));
  calls.add_calls();  // no call
  v1::ShardResults results;
  ASSERT_TRUE(Call(calls, results).ok());
  EXPECT_EQ(Count(Method::kOpen), 2u);
  EXPECT_EQ(Count(Method::kDescribe, absl::StatusCode::kNotFound), 1u);
  EXPECT_EQ(Count(Method::kClose, absl::StatusCode::kNotFound), 1u);
  EXPECT_EQ(Count(Method::kCall), 1u);
  EXPECT_EQ(Count(Method::kCall, absl::StatusCode::kInvalidArgument), 1u);
  EXPECT_EQ(Timed(CallKind::kSession), 6u);

  for (size_t i = 0; i < Limits().shard_calls_max; ++i) calls.add_calls();
  EXPECT_FALSE(Call(calls, results).ok());
  EXPECT_EQ(Count(Method::kCall, absl::StatusCode::kResourceExhausted), 1u);
  EXPECT_EQ(Count(Method::kOpen), 2u);
}

TEST_F(NodeMetricsTest, WhatOtherNodesReadCounts) {
  MakeShard("book");
  Append({ShardRows("book", 0, 100)});
  v1::InventoryRequest inventory;
  inventory.add_slots(SlotOf("book"));
  const auto pages_context = Context();
  const auto pages = shards_->Inventory(pages_context.get(), inventory);
  v1::ShardInventory page;
  while (pages->Read(&page)) {
  }
  EXPECT_TRUE(pages->Finish().ok());
  v1::DigestRequest digest;
  digest.set_session_id(ShardOf("book"));
  v1::DigestResponse digested;
  EXPECT_TRUE(shards_->Digest(Context().get(), digest, &digested).ok());
  for (const int64_t end : {100, 101}) {
    v1::ReadRowsRequest rows;
    rows.set_session_id(ShardOf("book"));
    rows.set_end(end);
    const auto context = Context();
    const auto reading = shards_->ReadRows(context.get(), rows);
    v1::AppendRequest message;
    while (reading->Read(&message)) {
    }
    EXPECT_EQ(reading->Finish().ok(), end == 100);
  }
  EXPECT_EQ(Count(Method::kInventory), 1u);
  EXPECT_EQ(Count(Method::kDigest), 1u);
  EXPECT_EQ(Count(Method::kReadRows), 1u);
  EXPECT_EQ(Count(Method::kReadRows, absl::StatusCode::kOutOfRange), 1u);
  EXPECT_EQ(Timed(CallKind::kSnapshot), 4u);
  v1::GetMapResponse map;
  EXPECT_TRUE(cluster_->GetMap(Context().get(), {}, &map).ok());
  v1::RepairStatus repair;
  EXPECT_TRUE(cluster_->GetRepair(Context().get(), {}, &repair).ok());
  v1::ChangeNodeResponse changed;
  EXPECT_FALSE(cluster_->ChangeNode(Context().get(), {}, &changed).ok());
  v1::RebalanceResponse rebalanced;
  EXPECT_TRUE(cluster_->Rebalance(Context().get(), {}, &rebalanced).ok());
  EXPECT_EQ(Count(Method::kGetMap), 1u);
  EXPECT_EQ(Count(Method::kGetRepair), 1u);
  EXPECT_EQ(Count(Method::kChangeNode, absl::StatusCode::kInvalidArgument), 1u);
  EXPECT_EQ(Count(Method::kRebalance), 1u);
}

// What passes the gate and what does not are both recorded.
TEST_F(NodeMetricsTest, RefusalsCountByReasonAndAsCalls) {
  MakeShard("book");
  EXPECT_EQ(Append({ShardRows("book", 0, 100)})[0].error().code(), 0);
  EXPECT_EQ(server_->calls().appended_tokens(), 100u);
  membership_->Set(Map(kEpoch + 2, kEpoch + 2));
  EXPECT_EQ(Append({ShardRows("book", 100, 50)})[0].error().code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(Append({ShardRows("book", 100, 50, kEpoch + 3)})[0].error().code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Count(Method::kAppend), 1u);
  EXPECT_EQ(Count(Method::kAppend, absl::StatusCode::kAborted), 1u);
  EXPECT_EQ(Count(Method::kAppend, absl::StatusCode::kUnavailable), 1u);
  EXPECT_EQ(server_->calls().appended_tokens(), 100u);
  EXPECT_EQ(Refused(GateRefusal::kStaleEpoch), 1u);
  EXPECT_EQ(Refused(GateRefusal::kBehind), 1u);
  EXPECT_EQ(Refused(GateRefusal::kNoMap), 0u);
  EXPECT_EQ(server_->AsNode()->map->epoch, kEpoch + 2);
}

}  // namespace
}  // namespace attic
