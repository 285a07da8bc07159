// A cluster answers as one store does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "api/shard.h"
#include "tests/unit/client/client_test_data.h"
#include "tests/unit/client/cluster/cluster_client_fixture.h"

namespace attic {
namespace {

using ClusterClientTest = ClusterClientFixture;

TEST_F(ClusterClientTest, AnswersAsOneStoreDoes) {
  Start(4, 2);
  Open("a");
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Append("a", 1 + random_() % 200), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
  const auto held = static_cast<int64_t>(held_["a"]);
  ExpectSame("a", {.begin = held / 3, .end = held / 2});
  ExpectSame("a", {.begin = held / 3, .end = held + 100});
  ExpectSame("a", {.begin = held + 5, .end = held + 100});
  ExpectSame("a", {.begin = 7, .end = 7});
  ExpectSame("a", {}, held);
}

TEST_F(ClusterClientTest, EveryReplicaHoldsItsShards) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  size_t shards = 0, manifests = 0;
  for (size_t n = 0; n < cluster_->size(); ++n) {
    for (const SessionDescription& one : cluster_->node(n).store()->ListSessions("", 1000)) {
      const auto name = ParseShardSessionId(one.session_id);
      ++(name.has_value() ? shards : manifests);
      EXPECT_EQ(one.watermark, name.has_value() ? 100 : 0);
      const auto& slot = cluster_->map()->slots[one.placement->slot];
      EXPECT_THAT(slot.replicas, ::testing::Contains(n));
    }
  }
  EXPECT_EQ(shards, kLayers.size() * 2 /*kv heads*/ * 2);
  EXPECT_EQ(manifests, 2);
}

TEST_F(ClusterClientTest, BlocksOfOneSessionLieOnManyNodes) {
  Start(4, 2);
  Open("a", {.shard_tokens = 256});
  for (int i = 0; i < 12; ++i) ASSERT_EQ(Append("a", 1 + random_() % 300), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  const auto held = static_cast<int64_t>(held_["a"]);
  ExpectSame("a");
  ExpectSame("a", {.begin = 100, .end = std::min<int64_t>(held, 700)});
  ExpectSame("a", {.begin = 256, .end = 512});
  ExpectSame("a", {.begin = 512, .end = 512});
  const auto described = client_->DescribeSession("a");
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_EQ(described->watermark, held);
  ASSERT_TRUE(client_->ForkSession("a", {.position = 500, .new_session_id = "f"}).ok());
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 500, .new_session_id = "f"}).ok());
  ExpectSame("f");
  for (const int64_t position : {int64_t{600}, int64_t{512}, int64_t{100}}) {
    const auto cut = client_->TruncateSession("a", position);
    ASSERT_TRUE(cut.ok()) << cut.status();
    EXPECT_EQ(cut->watermark, position);
    ASSERT_TRUE(oracle_->TruncateSession("a", position).ok());
    ExpectSame("a");
  }
  held_["a"] = 100;
  ASSERT_EQ(Append("a", 900), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
  ASSERT_TRUE(client_->CloseSession("a").ok());
  ASSERT_TRUE(client_->CloseSession("f").ok());
  for (size_t n = 0; n < cluster_->size(); ++n) {
    EXPECT_EQ(cluster_->node(n).store()->ListSessions("", 10).size(), 0);
  }
}

TEST_F(ClusterClientTest, SearchesFindWhatOneStoreFinds) {
  for (const int64_t shard_tokens : {0, 256}) {
    Start(3, 2);
    const std::string id = absl::StrCat("s", shard_tokens);
    Open(id, {.shard_tokens = shard_tokens});
    ASSERT_EQ(Append(id, 900), absl::OkStatus());
    ASSERT_EQ(Flush(), absl::OkStatus());
    const std::vector<float> queries = RandomFloats(4 * 16, random_);
    const SearchRequest request{.session_id = id,
                                .layer = 3,
                                .range = {.begin = 50, .end = 800},
                                .mode = AttendMode::kExact,
                                .k = 20,
                                .with_vectors = true,
                                .queries = queries};
    const auto want = oracle_->Search(request, absl::Now() + kSoon);
    ASSERT_TRUE(want.ok());
    for (const std::string_view replica : {"live", "silent", "dead"}) {
      SCOPED_TRACE(replica);
      if (replica == "silent") cluster_->node(1).Pause();
      if (replica == "dead") cluster_->node(0).Kill();
      const auto got = client_->Search(request, absl::Now() + kSoon);
      cluster_->node(1).Resume();
      ASSERT_TRUE(got.ok()) << got.status();
      ASSERT_EQ(got->hits.size(), want->hits.size());
      for (size_t head = 0; head < got->hits.size(); ++head) {
        ASSERT_EQ(got->hits[head].size(), want->hits[head].size());
        for (size_t i = 0; i < got->hits[head].size(); ++i) {
          EXPECT_EQ(got->hits[head][i].position, want->hits[head][i].position);
          EXPECT_FLOAT_EQ(got->hits[head][i].score, want->hits[head][i].score);
        }
        EXPECT_EQ(got->keys[head], want->keys[head]);
        EXPECT_EQ(got->values[head], want->values[head]);
      }
    }
    stream_.reset();
    client_.reset();
  }
}

TEST_F(ClusterClientTest, RefusesWhatAStoreRefuses) {
  Start(3, 2);
  Open("a");
  OpenSessionRequest other = Request("a");
  other.fingerprint.model_id = "other";
  EXPECT_EQ(client_->OpenSession(other).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_->OpenSession(Request("a#0.0")).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto again = client_->OpenSession(Request("a"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->created);
  const std::vector<float> queries = RandomFloats(4 * 16, random_);
  AttendItem item{.session_id = "b", .layer = 1, .queries = queries};
  auto answers = client_->Attend({&item, 1}, absl::Now() + kSoon);
  ASSERT_TRUE(answers.ok());
  EXPECT_EQ(answers->front().status.code(), absl::StatusCode::kNotFound);
  item.session_id = "a";
  item.min_watermark = 5;
  answers = client_->Attend({&item, 1}, absl::Now() + kSoon);
  ASSERT_TRUE(answers.ok());
  EXPECT_EQ(answers->front().status.code(), absl::StatusCode::kFailedPrecondition);
  const TestLayer& layer = data_.at(Key("a", 1));
  ASSERT_TRUE(stream_->Append(layer.Batch("a", 1, 10, 5)).ok());
  EXPECT_EQ(Flush().code(), absl::StatusCode::kOutOfRange);  // a gap
}

}  // namespace
}  // namespace attic
