// Sessions of a cluster as files: what comes back answers as what went out, whatever happens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "absl/strings/str_cat.h"
#include "api/prefix_hashes.h"
#include "api/shard.h"
#include "tests/unit/client/client_test_data.h"
#include "tests/unit/client/cluster/fake_cluster.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kSoon = absl::Seconds(60);
const std::vector<uint32_t> kLayers = {1, 3};

absl::Time Deadline() { return absl::Now() + kSoon; }

// A cluster that sessions come from, one of another size that they go to, and a store with the same
// tokens to compare with.
class ClusterSnapshotTest : public ::testing::Test {
 protected:
  void Start(size_t nodes, uint32_t replicas, ClientOptions options = {}) {
    const char* const chosen = std::getenv("ATTIC_TEST_SEED");
    const uint64_t seed =
        chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device()();
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    random_.seed(seed);
    client_.reset();  // they ask their clusters for the map until they end
    other_.reset();
    source_ = std::make_unique<FakeCluster>(nodes, replicas, seed, SmallStoreOptions());
    target_ = std::make_unique<FakeCluster>(nodes + 1, replicas, seed, SmallStoreOptions(), 48);
    client_ = source_->Connect(options);
    other_ = target_->Connect(options);
  }

  OpenSessionRequest Request(const std::string& id, Replication replication = {}) {
    return {.session_id = id,
            .fingerprint = TestFingerprint(),
            .stored_layers = kLayers,
            .replication = replication};
  }

  // A session with so many tokens of each layer, in cluster and oracle.
  void Fill(const OpenSessionRequest& request, std::vector<size_t> counts) {
    ASSERT_TRUE(client_->OpenSession(request).ok());
    ASSERT_TRUE(oracle_->OpenSession(request).ok());
    const auto stream = *client_->OpenAppendStream();
    for (size_t i = 0; i < kLayers.size(); ++i) {
      const TestLayer data(counts[i], random_);
      for (size_t begin = 0; begin < counts[i];) {
        const size_t count = std::min<size_t>(counts[i] - begin, 1 + random_() % 300);
        AppendBatch batch =
            data.Batch(request.session_id, kLayers[i], static_cast<int64_t>(begin), count);
        const std::vector<float> sample = RandomFloats(4 * 16 * 4, random_);
        batch.query_sample = sample;
        ASSERT_EQ(stream->Append(batch), absl::OkStatus());
        ASSERT_TRUE(oracle_->Append(batch, Deadline()).ok());
        begin += count;
      }
    }
    ASSERT_EQ(stream->Flush(Deadline()).status(), absl::OkStatus());
  }

  absl::StatusOr<std::string> Export(const std::string& id) {
    std::string bytes;
    const absl::Status status =
        client_->ExportSession(id, Deadline(), [&](std::string_view piece, uint64_t total) {
          EXPECT_GT(total, 0);
          bytes.append(piece);
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    return bytes;
  }

  // `step` is called before each piece.
  absl::StatusOr<SessionDescription> Import(
      Client& client, const std::string& bytes, const ImportOptions& options = {},
      const std::function<void(size_t at)>& step = [](size_t) {}) {
    size_t at = 0;
    return client.ImportSession(options, Deadline(), [&]() -> absl::StatusOr<std::string> {
      step(at);
      std::string piece = bytes.substr(at, 1 + random_() % 50000);
      at += piece.size();
      return piece;
    });
  }

  // Exact answers are those of the oracle's session, and indexed ones near them.
  void ExpectSame(Client& client, const std::string& id, const std::string& oracle_id) {
    for (const uint32_t layer : kLayers) {
      const std::vector<float> queries = RandomFloats(4 * 16, random_);
      AttendItem item{
          .session_id = id, .layer = layer, .mode = AttendMode::kExact, .queries = queries};
      const auto got = client.Attend({&item, 1}, Deadline());
      ASSERT_TRUE(got.ok()) << got.status();
      ASSERT_TRUE(got->front().status.ok()) << got->front().status;
      item.session_id = oracle_id;
      const auto want = oracle_->Attend({&item, 1}, Deadline());
      ASSERT_TRUE(want->front().status.ok());
      EXPECT_EQ(got->front().range, want->front().range);
      ASSERT_EQ(got->front().output.size(), want->front().output.size());
      for (size_t i = 0; i < got->front().output.size(); ++i) {
        EXPECT_NEAR(got->front().output[i], want->front().output[i], 1e-5);
      }
      item.session_id = id;
      item.mode = AttendMode::kIndexed;
      const auto indexed = client.Attend({&item, 1}, Deadline());
      ASSERT_TRUE(indexed.ok() && indexed->front().status.ok());
      const std::vector<double> exact(want->front().output.begin(), want->front().output.end());
      EXPECT_LT(RelativeError(indexed->front().output, exact), 0.1);
    }
  }

  static void ExpectEmpty(FakeCluster& cluster) {
    for (size_t n = 0; n < cluster.size(); ++n) {
      const auto store = cluster.node(n).store();
      if (store == nullptr) continue;
      for (const SessionDescription& left : store->ListSessions("", 10)) {
        ADD_FAILURE() << "node " << n << " has " << left.session_id;
      }
    }
  }

  static void WaitForBuilds(FakeCluster& cluster) {
    for (size_t n = 0; n < cluster.size(); ++n) {
      ASSERT_EQ(cluster.node(n).store()->WaitForBuilds(Deadline()), absl::OkStatus());
    }
  }

  std::mt19937_64 random_;
  std::unique_ptr<FakeCluster> source_, target_;
  std::unique_ptr<Client> client_, other_;
  std::unique_ptr<SessionStore> oracle_ = SessionStore::Create(SmallStoreOptions());
};

class AllKinds : public ClusterSnapshotTest,
                 public ::testing::WithParamInterface<std::tuple<uint32_t, int64_t>> {};

TEST_P(AllKinds, ComeBackAsTheyWere) {
  const auto [replicas, shard_tokens] = GetParam();
  Start(3, replicas);
  Fill(Request("a", {.shard_tokens = shard_tokens}), {1500, 1000});
  WaitForBuilds(*source_);
  const auto before = client_->DescribeSession("a");
  ASSERT_TRUE(before.ok());
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  for (Client* const client : {other_.get(), client_.get()}) {
    const std::string id = client == client_.get() ? "b" : "a";
    const auto made = Import(*client, *bytes, {.session_id = id});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE(made->created);
    ASSERT_EQ(made->layers.size(), 2);
    EXPECT_EQ(made->layers[0].watermark, 1500);
    EXPECT_EQ(made->layers[1].watermark, 1000);
    // Nothing is built anew.
    EXPECT_EQ(made->layers[0].indexed_tokens, before->layers[0].indexed_tokens);
    EXPECT_GT(made->layers[0].indexed_tokens, 0);
    EXPECT_EQ(made->placement->replication, before->placement->replication);
    EXPECT_EQ(made->placement->key, id);
    ExpectSame(*client, id, "a");
  }
  // What came back goes on, and goes.
  ASSERT_TRUE(other_->ForkSession("a", {.position = 700, .new_session_id = "f"}).ok());
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 700, .new_session_id = "f"}).ok());
  ExpectSame(*other_, "f", "f");
  ASSERT_EQ(other_->CloseSession("a"), absl::OkStatus());
  ASSERT_EQ(other_->CloseSession("f"), absl::OkStatus());
  ExpectEmpty(*target_);
}

INSTANTIATE_TEST_SUITE_P(ReplicasAndBlocks, AllKinds,
                         ::testing::Combine(::testing::Values(1u, 2u),
                                            ::testing::Values(int64_t{0}, int64_t{512})));

TEST_F(ClusterSnapshotTest, EveryReplicaHoldsWhatIsImported) {
  Start(3, 2);
  Fill(Request("a"), {300, 300});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  for (const uint32_t replicas : {1, 2}) {
    const auto made = Import(*other_, *bytes, {.session_id = "b", .replicas = replicas});
    ASSERT_TRUE(made.ok()) << made.status();
    size_t shards = 0;
    for (size_t n = 0; n < target_->size(); ++n) {
      for (const auto& one : target_->node(n).store()->ListSessions("", 100)) {
        if (!ParseShardSessionId(one.session_id).has_value()) continue;
        ++shards;
        EXPECT_EQ(one.watermark, 300);
      }
    }
    EXPECT_EQ(shards, kLayers.size() * 2 * replicas);
    ASSERT_EQ(other_->CloseSession("b"), absl::OkStatus());
  }
}

TEST_F(ClusterSnapshotTest, AttributesForksAndPrefixesComeToo) {
  Start(3, 2);
  std::vector<uint32_t> tokens(1024);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random_());
  OpenSessionRequest request = Request("a");
  request.tenant = "t";
  request.ttl_seconds = 1000;
  request.prefix_hashes = PrefixHashes(tokens);
  Fill(request, {1024, 1024});
  ASSERT_TRUE(client_->PinSession("a", true).ok());
  ASSERT_TRUE(client_->ForkSession("a", {.position = 500, .new_session_id = "f"}).ok());
  ASSERT_TRUE(oracle_->ForkSession("a", {.position = 500, .new_session_id = "f"}).ok());
  const auto whole = Export("a"), fork = Export("f");
  ASSERT_TRUE(whole.ok() && fork.ok()) << whole.status() << fork.status();
  const auto made = Import(*other_, *whole, {.session_id = "b"});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->tenant, "t");
  EXPECT_EQ(made->ttl_seconds, 1000);
  EXPECT_TRUE(made->pinned);
  ASSERT_TRUE(Import(*other_, *fork).ok());
  ExpectSame(*other_, "b", "a");
  ExpectSame(*other_, "f", "f");
  request.session_id = "c";
  request.reuse_prefix = true;
  const auto reader = other_->OpenSession(request);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->reused_tokens, 1024);
  ExpectSame(*other_, "c", "a");
}

TEST_F(ClusterSnapshotTest, HeadsThatAreAheadAreCutToWhatAllHold) {
  for (const bool old_release : {false, true}) {
    Start(2, 2);
    const std::string id = old_release ? "o" : "n";
    Fill(Request(id), {600, 500});
    const std::string ahead = ShardSessionId(id, {.layer = 1, .kv_head = 1});
    const std::vector<float> keys = RandomFloats(100 * 16, random_);
    const std::vector<float> values = RandomFloats(100 * 8, random_);
    for (size_t n = 0; n < source_->size(); ++n) {
      source_->node(n).old_release = old_release;
      ASSERT_TRUE(source_->node(n)
                      .store()
                      ->Append({.session_id = ahead,
                                .layer = 1,
                                .begin_position = 600,
                                .count = 100,
                                .keys = std::as_bytes(std::span(keys)),
                                .values = std::as_bytes(std::span(values))},
                               Deadline())
                      .ok());
    }
    const auto bytes = Export(id);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const auto made = Import(*other_, *bytes);
    ASSERT_TRUE(made.ok()) << made.status();
    for (size_t n = 0; n < target_->size(); ++n) {
      const auto held = target_->node(n).store()->DescribeSession(ahead);
      EXPECT_TRUE(!held.ok() || held->watermark == 600);
    }
    ExpectSame(*other_, id, id);
  }
}

TEST_F(ClusterSnapshotTest, NodesThatKnowNoPlacementsAreNamed) {
  Start(2, 1);
  Fill(Request("a"), {300, 300});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok());
  for (size_t n = 0; n < target_->size(); ++n) target_->node(n).old_release = true;
  EXPECT_FALSE(Import(*other_, *bytes, {.session_id = "b"}).ok());
  ExpectEmpty(*target_);
}

TEST_F(ClusterSnapshotTest, ANodeThatDiesInTheMiddleOfAnExportIsReplaced) {
  Start(3, 2, {.call_timeout = absl::Seconds(2)});
  Fill(Request("a"), {1500, 1000});
  WaitForBuilds(*source_);
  int deaths = 0;
  for (int round = 0; round < 12; ++round) {
    const size_t victim = random_() % 3;
    source_->node(victim).chunks_to_live = round;
    const auto bytes = Export("a");
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    source_->node(victim).chunks_to_live = -1;
    const auto made = Import(*other_, *bytes);
    ASSERT_TRUE(made.ok()) << made.status();
    ExpectSame(*other_, "a", "a");
    ASSERT_EQ(other_->CloseSession("a"), absl::OkStatus());
    if (source_->node(victim).store() != nullptr) continue;
    ++deaths;
    source_->node(victim).Restart();
    source_->Repair(victim);
  }
  EXPECT_GT(deaths, 0);
}

TEST_F(ClusterSnapshotTest, AnExportEndsWhenNobodyHasTheShard) {
  Start(2, 1, {.call_timeout = absl::Milliseconds(300)});
  Fill(Request("a"), {600, 600});
  for (size_t n = 0; n < 2; ++n) source_->node(n).chunks_to_live = 3;
  const auto bytes = Export("a");
  EXPECT_TRUE(absl::IsUnavailable(bytes.status())) << bytes.status();
  EXPECT_TRUE(absl::IsDataLoss(Import(*other_, "").status()));
}

TEST_F(ClusterSnapshotTest, ANodeThatDiesInTheMiddleOfAnImportIsLeftOut) {
  Start(3, 2, {.call_timeout = absl::Seconds(5)});
  Fill(Request("a"), {1500, 1000});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  for (int round = 0; round < 6; ++round) {
    const size_t victim = random_() % target_->size();
    target_->node(victim).chunks_to_live = static_cast<int>(random_() % 12);
    bool down = false;
    const auto note_death = [&](size_t) {
      if (down || target_->node(victim).store() != nullptr) return;
      down = true;
      target_->SetState(victim, NodeState::kDown);
    };
    const auto made = Import(*other_, *bytes, {}, note_death);
    ASSERT_TRUE(made.ok()) << made.status();
    target_->node(victim).chunks_to_live = -1;
    ExpectSame(*other_, "a", "a");
    ASSERT_EQ(other_->CloseSession("a"), absl::OkStatus());
    if (!down && target_->node(victim).store() != nullptr) continue;
    target_->node(victim).Restart();
    target_->SetState(victim, NodeState::kLive);
  }
}

TEST_F(ClusterSnapshotTest, TheMapMayChangeInTheMiddleOfAnImport) {
  Start(3, 2);
  Fill(Request("a"), {1500, 1000});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const auto change = [&](size_t at) {
    if (at == 0 || random_() % 4 != 0) return;
    target_->ChangeMap([&](ClusterMap& map) {
      for (SlotAssignment& slot : map.slots) std::swap(slot.replicas[0], slot.replicas[1]);
    });
  };
  const auto made = Import(*other_, *bytes, {}, change);
  ASSERT_TRUE(made.ok()) << made.status();
  ExpectSame(*other_, "a", "a");
}

TEST_F(ClusterSnapshotTest, AReplicaThatMissedAShardGetsItFromAnother) {
  Start(2, 2, {.call_timeout = absl::Seconds(5)});
  Fill(Request("a"), {600, 600});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  bool died = false;
  const auto made = Import(*other_, *bytes, {}, [&](size_t at) {
    if (died || at < bytes->size() / 2) return;
    died = true;
    // Back at once, without what it had, and nobody noticed.
    target_->node(0).Kill();
    target_->node(0).Restart();
  });
  // The manifest is gone from it too, which is repair's to bring back.
  ASSERT_TRUE(made.ok()) << made.status();
  size_t shards = 0;
  for (size_t n = 0; n < target_->size(); ++n) {
    for (const auto& one : target_->node(n).store()->ListSessions("", 100)) {
      if (ParseShardSessionId(one.session_id).has_value()) ++shards;
    }
  }
  EXPECT_EQ(shards, 8);
  ExpectSame(*other_, "a", "a");
}

TEST_F(ClusterSnapshotTest, DamagedFilesLeaveNothingBehind) {
  Start(3, 2);
  Fill(Request("a"), {400, 300});
  WaitForBuilds(*source_);
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  for (int round = 0; round < 60; ++round) {
    std::string damaged = *bytes;
    const size_t at = random_() % damaged.size();
    if (round % 2 == 0) {
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (random_() % 8)));
    } else {
      damaged.resize(at);
    }
    const auto made = Import(*other_, damaged, {.session_id = "b"});
    EXPECT_TRUE(absl::IsDataLoss(made.status())) << at << ": " << made.status();
    ExpectEmpty(*target_);
  }
  const auto stopped = other_->ImportSession(
      {}, Deadline(), [&, at = size_t{0}]() mutable -> absl::StatusOr<std::string> {
        if (at > bytes->size() / 2) return absl::CancelledError("enough");
        at += 1000;
        return bytes->substr(at - 1000, 1000);
      });
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
  ExpectEmpty(*target_);
  EXPECT_TRUE(Import(*other_, *bytes, {.session_id = "b"}).ok());
}

TEST_F(ClusterSnapshotTest, AnIdThatIsTakenStaysAsItIs) {
  Start(2, 2);
  Fill(Request("a"), {300, 300});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Import(*client_, *bytes).status()));
  ExpectSame(*client_, "a", "a");
  EXPECT_FALSE(Import(*client_, *bytes, {.session_id = "b#1"}).ok());
  EXPECT_FALSE(Import(*client_, *bytes, {.session_id = "b c"}).ok());
  EXPECT_FALSE(Import(*client_, *bytes, {.session_id = "b", .replicas = 4}).ok());
  EXPECT_TRUE(absl::IsNotFound(Export("none").status()));
}

TEST_F(ClusterSnapshotTest, FilesOfOneStoreAndOfAClusterAreToldApart) {
  Start(2, 1);
  Fill(Request("a"), {300, 300});
  const auto bytes = Export("a");
  ASSERT_TRUE(bytes.ok());
  auto sink = oracle_->ImportSession({.session_id = "b"});
  ASSERT_TRUE(sink.ok());
  const absl::Status status = (*sink)->Write(*bytes);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("cluster"));
  std::string store_bytes, chunk;
  auto store_source = oracle_->ExportSession("a");
  ASSERT_TRUE(store_source.ok());
  while (*(*store_source)->Next(chunk)) store_bytes += chunk;
  const auto made = Import(*other_, store_bytes, {.session_id = "b"});
  EXPECT_TRUE(absl::IsFailedPrecondition(made.status())) << made.status();
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("one store"));
  ExpectEmpty(*target_);
}

}  // namespace
}  // namespace attic
