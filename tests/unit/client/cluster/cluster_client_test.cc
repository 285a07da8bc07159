// A cluster answers as one store does, whatever happens to its nodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "api/prefix_hashes.h"
#include "api/shard.h"
#include "tests/unit/client/client_test_data.h"
#include "tests/unit/client/cluster/fake_cluster.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kSoon = absl::Seconds(20);
const std::vector<uint32_t> kLayers = {1, 3};

// A cluster, a client of it, and one store with the same sessions to compare with.
class ClusterClientTest : public ::testing::Test {
 protected:
  void Start(size_t nodes, uint32_t replicas, ClientOptions options = {}) {
    const char* const chosen = std::getenv("ATTIC_TEST_SEED");
    seed_ = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device()();
    SCOPED_TRACE(absl::StrCat("seed ", seed_));
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    random_.seed(seed_);
    cluster_ = std::make_unique<FakeCluster>(nodes, replicas, seed_, SmallStoreOptions());
    client_ = cluster_->Connect(options);
  }

  OpenSessionRequest Request(const std::string& id, Replication replication = {}) {
    return {.session_id = id,
            .fingerprint = TestFingerprint(),
            .stored_layers = kLayers,
            .replication = replication};
  }

  // In both.
  void Open(const std::string& id, Replication replication = {}) {
    const auto opened = client_->OpenSession(Request(id, replication));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_TRUE(opened->created);
    ASSERT_TRUE(oracle_->OpenSession(Request(id)).ok());
    for (const uint32_t layer : kLayers) data_.emplace(Key(id, layer), TestLayer(6000, random_));
    stream_ = *client_->OpenAppendStream();
  }

  static std::string Key(const std::string& id, uint32_t layer) {
    return absl::StrCat(id, "/", layer);
  }

  // The next `count` tokens of every layer, in both.
  absl::Status Append(const std::string& id, size_t count) {
    for (const uint32_t layer : kLayers) {
      const AppendBatch batch =
          data_.at(Key(id, layer)).Batch(id, layer, static_cast<int64_t>(held_[id]), count);
      if (const absl::Status sent = stream_->Append(batch); !sent.ok()) return sent;
      EXPECT_TRUE(oracle_->Append(batch, absl::Now() + kSoon).ok());
    }
    held_[id] += count;
    return absl::OkStatus();
  }
  absl::Status Flush() { return stream_->Flush(absl::Now() + kSoon).status(); }

  // Exact answers of both are the same.
  void ExpectSame(const std::string& id, PositionRange range = {}, int64_t min_watermark = 0,
                  absl::Duration timeout = kSoon) {
    for (const uint32_t layer : kLayers) {
      const std::vector<float> queries = RandomFloats(4 * 16, random_);
      const AttendItem item{.session_id = id,
                            .layer = layer,
                            .range = range,
                            .min_watermark = min_watermark,
                            .mode = AttendMode::kExact,
                            .queries = queries};
      const auto got = client_->Attend({&item, 1}, absl::Now() + timeout);
      ASSERT_TRUE(got.ok()) << got.status();
      ASSERT_TRUE(got->front().status.ok()) << got->front().status;
      const auto want = oracle_->Attend({&item, 1}, absl::Now() + kSoon);
      ExpectClose(got->front(), want->front());
    }
  }

  static void ExpectClose(const AttendAnswer& got, const AttendAnswer& want) {
    EXPECT_EQ(got.range, want.range);
    ASSERT_EQ(got.output.size(), want.output.size());
    for (size_t i = 0; i < got.output.size(); ++i) EXPECT_NEAR(got.output[i], want.output[i], 1e-5);
    for (size_t i = 0; i < got.log_sum_exp.size(); ++i) {
      if (got.log_sum_exp[i] != want.log_sum_exp[i]) {  // both may be -infinity
        EXPECT_NEAR(got.log_sum_exp[i], want.log_sum_exp[i], 1e-4);
      }
      EXPECT_FLOAT_EQ(got.coverage[i], want.coverage[i]);
      EXPECT_EQ(got.estimated_error[i], 0);
    }
    EXPECT_EQ(got.read.tokens, want.read.tokens);
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::unique_ptr<FakeCluster> cluster_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<SessionStore> oracle_ = SessionStore::Create(SmallStoreOptions());
  std::unique_ptr<AppendStream> stream_;
  std::map<std::string, TestLayer> data_;
  std::map<std::string, size_t> held_;
};

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

TEST_F(ClusterClientTest, GoesOnWhenANodeDiesBetweenAppendsAndAnswers) {
  for (size_t victim = 0; victim < 3; ++victim) {
    Start(3, 2);
    const std::string id = absl::StrCat("a", victim);
    Open(id);
    ASSERT_EQ(Append(id, 300), absl::OkStatus());
    ASSERT_EQ(Flush(), absl::OkStatus());
    const auto held = cluster_->node(victim).store()->ListSessions("", 100);
    const bool concerned = std::any_of(held.begin(), held.end(), [](const auto& one) {
      return ParseShardSessionId(one.session_id).has_value();
    });
    cluster_->node(victim).Kill();
    ExpectSame(id);
    ASSERT_EQ(Append(id, 50), absl::OkStatus());
    // Nobody says yet that the node is gone: the append waits for the map.
    EXPECT_EQ(
        absl::IsDeadlineExceeded(stream_->Flush(absl::Now() + absl::Milliseconds(100)).status()),
        concerned);
    cluster_->SetState(victim, NodeState::kDown);
    ASSERT_EQ(Flush(), absl::OkStatus());
    ExpectSame(id);
    stream_.reset();
    client_.reset();
  }
}

TEST_F(ClusterClientTest, ASlowReplicaIsHedged) {
  Start(2, 2);
  Open("a");
  ASSERT_EQ(Append("a", 300), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  for (int i = 0; i < 50; ++i) ExpectSame("a");
  cluster_->node(1).Pause();
  const absl::Time begin = absl::Now();
  for (int i = 0; i < 10; ++i) ExpectSame("a");
  // Far less than waiting for the node, or its patience each time, would take.
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
  cluster_->node(1).Resume();
}

TEST_F(ClusterClientTest, ALaggingReplicaIsNotAskedForWhatItLacks) {
  Start(2, 2, {.call_timeout = absl::Seconds(2)});
  Open("a", {.ack_policy = AckPolicy::kOne});
  ASSERT_EQ(Append("a", 300), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(0).Pause();
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());  // one holds it
  // Comes back to find its streams gone, and with them what was on the way.
  cluster_->node(0).BreakStreams();
  for (int i = 0; i < 20; ++i) ExpectSame("a");
  cluster_->node(0).Resume();
  for (int i = 0; i < 20; ++i) ExpectSame("a");
}

TEST_F(ClusterClientTest, PolicyAllFailsWhenAReplicaStaysAwayAndNobodySaysSo) {
  Start(2, 2, {.call_timeout = absl::Milliseconds(300)});
  Open("a");
  cluster_->node(1).Kill();
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  EXPECT_EQ(Flush().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClusterClientTest, PolicyQuorumOfThreeLosesOneAndNotTwo) {
  Start(3, 3, {.call_timeout = absl::Milliseconds(500)});
  Open("a", {.ack_policy = AckPolicy::kQuorum});
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(0).Kill();
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
  cluster_->node(1).Kill();
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  EXPECT_EQ(Flush().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClusterClientTest, SlotsMoveWhileTokensCome) {
  Start(4, 2);
  Open("a");
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 5; ++i) ASSERT_EQ(Append("a", 1 + random_() % 20), absl::OkStatus());
    const size_t moving = random_() % cluster_->size();
    // In a quarter of the slots the node comes in, is filled and replaces the last replica.
    cluster_->ChangeMap([&](ClusterMap& map) {
      for (SlotAssignment& slot : map.slots) {
        const bool there =
            std::find(slot.replicas.begin(), slot.replicas.end(), moving) != slot.replicas.end();
        if (!there && random_() % 2 == 0) slot.incoming = {static_cast<uint32_t>(moving)};
      }
    });
    for (int i = 0; i < 5; ++i) ASSERT_EQ(Append("a", 1 + random_() % 20), absl::OkStatus());
    ASSERT_EQ(Flush(), absl::OkStatus());
    cluster_->Repair(moving);
    cluster_->ChangeMap([&](ClusterMap& map) {
      for (SlotAssignment& slot : map.slots) {
        if (slot.incoming.empty()) continue;
        slot.replicas.back() = slot.incoming.front();
        slot.incoming.clear();
      }
    });
    ExpectSame("a");
  }
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
}

TEST_F(ClusterClientTest, ANodeWithAnOldMapIsWaitedForOrPassedBy) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(2).FreezeMap();
  cluster_->ChangeMap([](ClusterMap& map) { map.nodes[0].zone = "elsewhere"; });
  ExpectSame("a");
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  std::thread thaw([&] { cluster_->node(2).Thaw(); });
  ASSERT_EQ(Flush(), absl::OkStatus());
  thaw.join();
  ExpectSame("a");
}

TEST_F(ClusterClientTest, RandomFaultsChangeNoAnswer) {
  Start(4, 2);
  Open("a");
  Open("b", {.replicas = 3});
  // Streams belong to the client, not to a session.
  std::vector<bool> down(4, false);
  for (int step = 0; step < 60; ++step) {
    const std::string id = random_() % 2 == 0 ? "a" : "b";
    const size_t node = random_() % 4;
    const bool calm = std::count(down.begin(), down.end(), true) == 0;
    switch (random_() % 4) {
      case 0:
        if (calm) {
          cluster_->node(node).Kill();
          cluster_->SetState(node, NodeState::kDown);
          down[node] = true;
        } else {
          const size_t back =
              static_cast<size_t>(std::find(down.begin(), down.end(), true) - down.begin());
          ASSERT_EQ(Flush(), absl::OkStatus());
          cluster_->node(back).Restart();
          cluster_->SetState(back, NodeState::kRepairing);
          ASSERT_EQ(Append(id, 1 + random_() % 10), absl::OkStatus());
          ASSERT_EQ(Flush(), absl::OkStatus());
          cluster_->Repair(back);
          cluster_->SetState(back, NodeState::kLive);
          down[back] = false;
        }
        break;
      case 1:
        cluster_->node(node).BreakStreams();
        break;
      default:
        if (held_[id] < 5000) {
          ASSERT_EQ(Append(id, 1 + random_() % 60), absl::OkStatus());
        }
        break;
    }
    ASSERT_EQ(Flush(), absl::OkStatus());
    ExpectSame(id);
    if (HasFatalFailure()) return;
  }
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

TEST_F(ClusterClientTest, SessionsAreDescribedForkedTruncatedAndClosed) {
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

TEST_F(ClusterClientTest, AForkReplacesWhatAFailedOneLeft) {
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

TEST_F(ClusterClientTest, LeasesOfWhatIsUsedDoNotEnd) {
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

TEST_F(ClusterClientTest, PrefixesAreReusedByAllHeadsAlike) {
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
    for (const bool dead : {false, true}) {
      if (dead) cluster_->node(0).Kill();
      const auto got = client_->Search(request, absl::Now() + kSoon);
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

TEST_F(ClusterClientTest, ManyThreadsAttendWhileTokensComeAndANodeDies) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 400), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  const TestLayer& layer = data_.at(Key("a", 1));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed_ + static_cast<uint64_t>(t));
      while (!stop) {
        const std::vector<float> queries = RandomFloats(4 * 16, random);
        const AttendItem item{
            .session_id = "a", .layer = 1, .mode = AttendMode::kExact, .queries = queries};
        const auto got = client_->Attend({&item, 1}, absl::Now() + kSoon);
        if (!got.ok() || !got->front().status.ok()) {
          ++wrong;
          continue;
        }
        // All heads answered for the same positions, which were acknowledged.
        std::vector<double> log_sum_exp;
        const PositionRange range = got->front().range;
        const auto want = layer.Oracle(queries, range, log_sum_exp);
        if (range.end < 400 || RelativeError(got->front().output, want) > 1e-5) ++wrong;
        ++answered;
      }
    });
  }
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(Append("a", 1 + random_() % 20), absl::OkStatus());
    if (i == 20) {
      cluster_->node(1).Kill();
      cluster_->SetState(1, NodeState::kDown);
    }
    ASSERT_EQ(Flush(), absl::OkStatus());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(answered, 0);
}

}  // namespace
}  // namespace attic
