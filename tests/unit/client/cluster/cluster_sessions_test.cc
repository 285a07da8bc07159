// Sessions of a cluster are one to its clients, however many shards there are.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "api/prefix_hashes.h"
#include "api/shard.h"
#include "tests/unit/client/client_test_data.h"
#include "tests/unit/client/cluster/cluster_client_fixture.h"

namespace attic {
namespace {

using ClusterSessionsTest = ClusterClientFixture;

TEST_F(ClusterSessionsTest, SessionsAreDescribedForkedTruncatedAndClosed) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 500), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  const auto described = client_->DescribeSession("a");
  ASSERT_TRUE(described.ok()) << described.status();
  const auto want = oracle_->DescribeSession("a");
  EXPECT_EQ(described->watermark, want->watermark);
  EXPECT_EQ(described->fingerprint, want->fingerprint);
  ASSERT_EQ(described->layers.size(), 2);
  EXPECT_EQ(described->layers[1].watermark, 500);
  const auto fork = client_->ForkSession("a", {.position = 300, .new_session_id = "f"});
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_EQ(fork->watermark, 300);
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 300, .new_session_id = "f"}).ok());
  ExpectSame("f");
  EXPECT_EQ(client_->ForkSession("a", {.position = 300, .new_session_id = "f"}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(client_->ForkSession("a", {.position = 501, .new_session_id = "g"}).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client_->DescribeSession("g").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->TruncateSession("a", 501).status().code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(client_->TruncateSession("a", 200).ok());
  ASSERT_TRUE(oracle_->TruncateSession("a", 200).ok());
  ExpectSame("a");
  const auto listed = client_->ListSessions();
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 2);
  EXPECT_EQ((*listed)[0].session_id, "a");
  EXPECT_EQ((*listed)[0].watermark, 200);
  EXPECT_EQ((*listed)[1].session_id, "f");
  const auto plans = client_->PlanSession("a");
  ASSERT_TRUE(plans.ok()) << plans.status();
  ASSERT_EQ(plans->size(), 4);
  EXPECT_EQ((*plans)[3].layer, 3);
  EXPECT_EQ((*plans)[3].kv_head, 1);
  const auto status = client_->Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->epoch, 1);
  ASSERT_TRUE(client_->CloseSession("a").ok());
  EXPECT_EQ(client_->CloseSession("a").code(), absl::StatusCode::kNotFound);
  ExpectSame("f");
  ASSERT_TRUE(client_->CloseSession("f").ok());
  for (size_t n = 0; n < cluster_->size(); ++n) {
    EXPECT_EQ(cluster_->node(n).store()->ListSessions("", 10).size(), 0);
  }
}

TEST_F(ClusterSessionsTest, AForkReplacesWhatAFailedOneLeft) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 500), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  const ShardId shard{.layer = 3, .kv_head = 1};
  const auto& slot = cluster_->map()->slots[SlotOfShard("a", shard, 64)];
  ASSERT_TRUE(cluster_->node(slot.replicas[1])
                  .store()
                  ->ForkSession(ShardSessionId("a", shard),
                                {.position = 77, .new_session_id = ShardSessionId("f", shard)})
                  .ok());
  const auto fork = client_->ForkSession("a", {.position = 300, .new_session_id = "f"});
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_EQ(fork->watermark, 300);
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 300, .new_session_id = "f"}).ok());
  for (int i = 0; i < 10; ++i) ExpectSame("f");
  for (const uint32_t node : slot.replicas) {
    const auto held = cluster_->node(node).store()->DescribeSession(ShardSessionId("f", shard));
    ASSERT_TRUE(held.ok()) << held.status();
    EXPECT_EQ(held->watermark, 300);
  }
}

TEST_F(ClusterSessionsTest, LeasesOfWhatIsUsedDoNotEnd) {
  Start(2, 2);
  OpenSessionRequest request = Request("a");
  request.ttl_seconds = 2;
  ASSERT_TRUE(client_->OpenSession(request).ok());
  // The manifest is touched by nothing but the renewal.
  const absl::Time end = absl::Now() + absl::Seconds(4.5);
  const std::vector<float> queries(4 * 16);
  while (absl::Now() < end) {
    const AttendItem item{.session_id = "a", .layer = 1, .queries = queries};
    const auto answers = client_->Attend({&item, 1}, absl::Now() + kSoon);
    ASSERT_TRUE(answers.ok() && answers->front().status.ok());
  }
  EXPECT_TRUE(client_->DescribeSession("a").ok());
}

TEST_F(ClusterSessionsTest, PrefixesAreReusedByAllHeadsAlike) {
  Start(3, 2);
  std::vector<uint32_t> tokens(1024);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random_());
  OpenSessionRequest first = Request("a");
  first.prefix_hashes = PrefixHashes(tokens);
  ASSERT_TRUE(client_->OpenSession(first).ok());
  ASSERT_TRUE(oracle_->OpenSession(Request("a")).ok());
  for (const uint32_t layer : kLayers) data_.emplace(Key("a", layer), TestLayer(1024, random_));
  stream_ = *client_->OpenAppendStream();
  ASSERT_EQ(Append("a", 700), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  OpenSessionRequest second = first;
  second.session_id = "b";
  second.reuse_prefix = true;
  const auto opened = client_->OpenSession(second);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(opened->created);
  EXPECT_EQ(opened->reused_tokens, 512);
  EXPECT_EQ(opened->watermark, 512);
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 512, .new_session_id = "b"}).ok());
  ExpectSame("b");
  // A head that lost some of it brings the others down to what is left.
  const ShardId shard{.layer = 3, .kv_head = 1};
  const auto slot = SlotOfShard(PlacementKey("a", first.prefix_hashes), shard, 64);
  for (const std::string id : {"a", "b"}) {
    const uint32_t node = cluster_->map()->slots[slot].replicas[1];
    ASSERT_TRUE(cluster_->node(node).store()->TruncateSession(ShardSessionId(id, shard), 300).ok());
  }
  OpenSessionRequest third = second;
  third.session_id = "c";
  const auto cut = client_->OpenSession(third);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->reused_tokens, 256);
  EXPECT_EQ(cut->watermark, 256);
  const auto described = client_->DescribeSession("c");
  EXPECT_EQ(described->watermark, 256);
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 256, .new_session_id = "c"}).ok());
  ExpectSame("c");
}

}  // namespace
}  // namespace attic
