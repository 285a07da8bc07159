// Repair with threads of its own, between real stores.
#include "server/cluster/repair/repairer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "api/shard.h"
#include "base/status_macros.h"
#include "server/cluster/repair/store_holder.h"
#include "server/session/session_store.h"
#include "tests/support/manual_membership.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

// Another node's store, as if over the network.
class StorePeer final : public ShardPeer {
 public:
  explicit StorePeer(SessionStore& store) : store_(store), holder_(store) {}

  absl::StatusOr<PeerInventory> Inventory(std::span<const uint32_t> slots, uint64_t,
                                          absl::Time) override {
    PeerInventory inventory;
    for (const auto& session : store_.ListPlaced("", 1000, slots)) {
      inventory.shards.push_back(ToHeldShard(session));
    }
    return inventory;
  }
  absl::StatusOr<PeerInventory> Find(std::span<const std::string> ids, uint64_t,
                                     absl::Time) override {
    PeerInventory inventory;
    for (const std::string& id : ids) {
      if (const auto shard = holder_.Describe(id); shard.ok()) inventory.shards.push_back(*shard);
    }
    return inventory;
  }
  absl::StatusOr<RowsDigest> Digest(const std::string& id, absl::Time deadline) override {
    return holder_.Digest(id, deadline);
  }
  absl::Status ReadRows(const std::string& id, int64_t begin, int64_t end, absl::Duration,
                        const RowsSink& sink) override {
    ATTIC_ASSIGN_OR_RETURN(const auto source, store_.ReadRows(id, begin, end));
    ShardRows rows;
    for (;;) {
      ATTIC_ASSIGN_OR_RETURN(const bool more, source->Next(rows));
      if (!more) return absl::OkStatus();
      ATTIC_RETURN_IF_ERROR(sink({.session_id = id,
                                  .layer = rows.layer,
                                  .begin_position = rows.begin_position,
                                  .count = rows.count,
                                  .keys = rows.keys,
                                  .values = rows.values}));
    }
  }
  absl::Status Export(const std::string& id, absl::Duration, const BytesSink& sink) override {
    ATTIC_ASSIGN_OR_RETURN(const auto source, store_.ExportSession(id));
    std::string chunk;
    for (;;) {
      ATTIC_ASSIGN_OR_RETURN(const bool more, source->Next(chunk));
      if (!more) return absl::OkStatus();
      ATTIC_RETURN_IF_ERROR(sink(chunk));
    }
  }

 private:
  SessionStore& store_;
  StoreHolder holder_;
};

class RepairerTest : public testing::Test {
 protected:
  static constexpr uint32_t kSlot = 2;

  static std::unique_ptr<SessionStore> MakeStore(int64_t segment_tokens = 1024) {
    SessionStoreOptions options;
    options.threads = 1;
    options.build_threads = 1;
    options.index.segment_tokens = segment_tokens;
    options.node_of_cluster = true;
    return SessionStore::Create(options);
  }
  static ClusterMap Map(uint64_t epoch, NodeState mine) {
    return {.cluster = "c",
            .epoch = epoch,
            .nodes = {{.id = "a", .address = "x:1", .state = mine}, {.id = "b", .address = "x:2"}},
            .slots = std::vector<SlotAssignment>(4, {.replicas = {0, 1}, .epoch = 1})};
  }
  void Open(SessionStore& store, const std::string& session) {
    Fingerprint model = SmallFingerprint();
    OpenSessionRequest manifest{
        .session_id = session,
        .fingerprint = model,
        .stored_layers = {1},
        .placement = Placement{.slot = 1, .key = session, .replication = {.replicas = replicas_}}};
    auto opened = store.OpenSession(manifest);
    ASSERT_TRUE(opened.ok()) << opened.status();
    OpenSessionRequest shard = manifest;
    shard.session_id = session + "#1.0";
    shard.fingerprint = fingerprint_;
    shard.placement->slot = kSlot;
    shard.prefix_hashes = hashes_;
    opened = store.OpenSession(shard);
    ASSERT_TRUE(opened.ok()) << opened.status();
  }
  void Append(SessionStore& store, const std::string& session, int64_t begin, const Tokens& rows) {
    const auto ack = store.Append(rows.Batch(session + "#1.0", 1, begin), Soon());
    ASSERT_TRUE(ack.ok()) << ack.status();
  }
  static absl::Time Soon() { return absl::Now() + absl::Seconds(60); }
  bool Same(const std::string& id) {
    const auto mine = own_->DigestRows(id, Soon()), theirs = other_->DigestRows(id, Soon());
    return mine.ok() && theirs.ok() && *mine == *theirs;
  }
  void Start() {
    RepairOptions options;
    options.parallel_pulls = 3;
    options.settle = absl::Milliseconds(50);
    options.retry_pause = absl::Milliseconds(10);
    repairer_ = std::make_unique<Repairer>(
        membership_, holder_, changes_,
        [this](const ClusterNode&) { return std::make_shared<StorePeer>(*other_); }, options);
  }
  // Polls what other threads bring about.
  template <typename Condition>
  void Await(const Condition& condition) {
    const absl::Time end = Soon();
    Mutex mutex;
    CondVar never;
    while (!condition() && absl::Now() < end) {
      MutexLock lock(mutex);
      never.WaitFor(mutex, std::chrono::milliseconds(2));
    }
    EXPECT_TRUE(condition()) << repairer_->progress().last_error;
  }

  const Fingerprint fingerprint_ = ShardFingerprint(SmallFingerprint());
  uint32_t replicas_ = 2;
  std::vector<PrefixHash> hashes_;  // of shards
  std::mt19937_64 random_{std::random_device{}()};
  std::unique_ptr<SessionStore> own_ = MakeStore(), other_ = MakeStore();
  StoreHolder holder_{*own_};
  ManualMembership membership_{"a"};
  ShardChanges changes_{absl::Milliseconds(50), [] { return absl::Now(); }};
  std::unique_ptr<Repairer> repairer_;
};

TEST_F(RepairerTest, FillsAStoreWhileRowsAreAppended) {
  for (const char* session : {"empty", "short", "long", "differs"}) Open(*other_, session);
  Append(*other_, "short", 0, Tokens::Random(fingerprint_, 300, random_));
  const Tokens long_rows = Tokens::Random(fingerprint_, 9000, random_);
  Append(*other_, "long", 0, long_rows);
  Append(*other_, "differs", 0, Tokens::Random(fingerprint_, 8500, random_));
  // What is here already: some of it, something else, and something that was closed.
  Open(*own_, "long");
  const Tokens some{.count = 100,
                    .keys = {long_rows.keys.begin(), long_rows.keys.begin() + 100 * 16 * 4},
                    .values = {long_rows.values.begin(), long_rows.values.begin() + 100 * 8 * 4}};
  Append(*own_, "long", 0, some);
  Open(*own_, "differs");
  Append(*own_, "differs", 0, Tokens::Random(fingerprint_, 8700, random_));
  Open(*own_, "closed");
  membership_.Set(Map(2, NodeState::kRepairing));
  Start();
  for (int i = 0; i < 20; ++i) {
    const Tokens rows = Tokens::Random(fingerprint_, 10, random_);
    Append(*other_, "long", 9000 + 10 * i, rows);
    // As a writer does: best effort.
    own_->Append(rows.Batch("long#1.0", 1, 9000 + 10 * i), Soon()).IgnoreError();
  }
  Await([&] { return membership_.report().node_synced; });
  EXPECT_EQ(membership_.report().epoch, 2);
  for (const char* session : {"empty", "short", "long", "differs"}) {
    EXPECT_TRUE(Same(session + std::string("#1.0"))) << session;
    EXPECT_TRUE(own_->DescribeSession(session).ok()) << session;
  }
  EXPECT_TRUE(absl::IsNotFound(own_->DescribeSession("closed").status()));
  EXPECT_TRUE(absl::IsNotFound(own_->DescribeSession("closed#1.0").status()));
  // The same answers, whatever the index.
  const std::vector<float> query = RandomFloats(2 * 16, random_);
  const AttendItem item{.session_id = "long#1.0",
                        .layer = 1,
                        .min_watermark = 9200,
                        .mode = AttendMode::kExact,
                        .queries = query};
  const auto mine = own_->Attend({&item, 1}, Soon()), theirs = other_->Attend({&item, 1}, Soon());
  ASSERT_TRUE((*mine)[0].status.ok() && (*theirs)[0].status.ok());
  for (size_t i = 0; i < (*mine)[0].output.size(); ++i) {
    EXPECT_NEAR((*mine)[0].output[i], (*theirs)[0].output[i], 1e-5);
  }
}

TEST_F(RepairerTest, FillsAStoreThatCutsSegmentsOtherwise) {
  other_ = MakeStore(2048);
  std::vector<PrefixHash> hashes(4);
  for (size_t i = 0; i < hashes.size(); ++i) hashes[i].fill(static_cast<uint8_t>(i + 1));
  hashes_ = hashes;
  Open(*other_, "book");
  Append(*other_, "book", 0, Tokens::Random(fingerprint_, 5000, random_));
  ASSERT_TRUE(other_->WaitForBuilds(Soon()).ok());
  membership_.Set(Map(2, NodeState::kRepairing));
  Start();
  Await([&] { return membership_.report().node_synced; });
  EXPECT_TRUE(Same("book#1.0"));
  EXPECT_EQ(repairer_->progress().failures, 0);
  const auto mine = own_->DescribeSession("book#1.0");
  const auto theirs = other_->DescribeSession("book#1.0");
  ASSERT_TRUE(mine.ok() && theirs.ok());
  EXPECT_EQ(mine->placement, theirs->placement);
  EXPECT_EQ(mine->fingerprint, theirs->fingerprint);
  // Others find it by its tokens, as where it came from.
  OpenSessionRequest reuse{.session_id = "next#1.0",
                           .fingerprint = fingerprint_,
                           .stored_layers = {1},
                           .prefix_hashes = hashes,
                           .reuse_prefix = true,
                           .placement = theirs->placement};
  const auto reused = own_->OpenSession(reuse);
  ASSERT_TRUE(reused.ok()) << reused.status();
  EXPECT_EQ(reused->reused_tokens, 4 * kPrefixBlockTokens);
}

TEST_F(RepairerTest, FillsAGapThatIsReported) {
  membership_.Set(Map(2, NodeState::kLive));
  Start();
  Await([&] { return repairer_->progress().node_synced; });
  Open(*other_, "late");
  Append(*other_, "late", 0, Tokens::Random(fingerprint_, 50, random_));
  repairer_->NotifyGap("late#1.0");
  Await([&] { return Same("late#1.0"); });
}

TEST_F(RepairerTest, LooksAgainWhenTheMapChanges) {
  Start();
  replicas_ = 1;
  Open(*other_, "book");
  ClusterMap map = Map(2, NodeState::kLive);
  for (auto& slot : map.slots) slot.replicas = {1};
  membership_.Set(map);
  Await([&] { return membership_.report().epoch == 2; });
  EXPECT_TRUE(absl::IsNotFound(own_->DescribeSession("book").status()));
  map.epoch = 3;
  for (auto& slot : map.slots) slot.incoming = {0};
  membership_.Set(map);
  Await([&] { return membership_.report().slots.size() == 4; });
  EXPECT_TRUE(own_->DescribeSession("book").ok());
  // Given away again: dropped.
  map.epoch = 4;
  for (auto& slot : map.slots) slot.incoming = {};
  membership_.Set(map);
  Await([&] { return absl::IsNotFound(own_->DescribeSession("book").status()); });
}

}  // namespace
}  // namespace attic
