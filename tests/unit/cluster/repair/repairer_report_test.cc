// When a node says that it is filled.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>

#include "server/cluster/repair/repairer.h"
#include "tests/support/manual_membership.h"
#include "tests/unit/cluster/repair/fake_node.h"

namespace attic {
namespace {

// A node's store at whose listings something else happens.
class WatchedHolder final : public ShardHolder {
 public:
  explicit WatchedHolder(FakeNode& node) : node_(node) {}
  std::function<void()> on_list = [] {};

  absl::StatusOr<std::vector<HeldShard>> List() override {
    auto list = node_.List();
    on_list();
    return list;
  }
  absl::StatusOr<HeldShard> Describe(const std::string& id) override { return node_.Describe(id); }
  absl::StatusOr<RowsDigest> Digest(const std::string& id, absl::Time deadline) override {
    return node_.Digest(id, deadline);
  }
  absl::StatusOr<std::unique_ptr<ShardImport>> Import(const HeldShard& shard) override {
    return node_.Import(shard);
  }
  absl::Status Append(const AppendBatch& batch, absl::Time deadline) override {
    return node_.Append(batch, deadline);
  }
  absl::Status Truncate(const std::string& id, int64_t position) override {
    return node_.Truncate(id, position);
  }
  absl::Status Close(const std::string& id) override { return node_.Close(id); }

 private:
  FakeNode& node_;
};

class RepairerReportTest : public testing::Test {
 protected:
  const std::string id_ = "s#0.0";

  RepairerReportTest() {
    // The first pass may begin before Start ends.
    peer_->on_inventory = [this] {
      while (!started_) std::this_thread::yield();
    };
    EXPECT_TRUE(other_.Open({.session_id = id_, .slot = 1, .replicas = 2}));
    AppendThereOnly();
    membership_.Set({.cluster = "c",
                     .epoch = 4,
                     .nodes = {{.id = "a", .address = "x:1", .state = NodeState::kRepairing},
                               {.id = "b", .address = "x:2"}},
                     .slots = std::vector<SlotAssignment>(4, {.replicas = {0, 1}, .epoch = 1})});
  }
  void AppendThereOnly() {
    const uint64_t held = other_.Find(id_)->rows.size();
    ASSERT_TRUE(other_.AppendRows(id_, static_cast<int64_t>(held), {held}).ok());
  }
  bool Same() {
    const auto mine = own_.Find(id_), theirs = other_.Find(id_);
    return mine != nullptr && mine->rows == theirs->rows;
  }
  void Start() {
    RepairOptions options;
    options.retry_pause = absl::Milliseconds(10);
    options.shard.block_tokens = kFakeBlockTokens;
    repairer_ = std::make_unique<Repairer>(
        membership_, holder_, changes_, [this](const ClusterNode&) { return peer_; }, options);
    started_ = true;
  }
  template <typename Condition>
  bool Await(const Condition& condition) {
    const absl::Time end = absl::Now() + absl::Seconds(60);
    Mutex mutex;
    CondVar never;
    while (!condition() && absl::Now() < end) {
      MutexLock lock(mutex);
      never.WaitFor(mutex, std::chrono::milliseconds(2));
    }
    return condition();
  }

  FakeClock clock_;  // of the peer's hangs, of which there are none
  FakeNode own_, other_;
  WatchedHolder holder_{own_};
  std::shared_ptr<FakePeer> peer_ = std::make_shared<FakePeer>(other_, clock_);
  ManualMembership membership_{"a"};
  ShardChanges changes_{absl::Milliseconds(10), [] { return absl::Now(); }};
  std::atomic<bool> started_{false};
  std::unique_ptr<Repairer> repairer_;
};

// A writer whose append a node refuses as a gap goes on without it, while that node is not live.
TEST_F(RepairerReportTest, NotWhileAGapIsReportedThatThePassDidNotSee) {
  int gaps = 0, asked = 0;
  holder_.on_list = [&] {
    // Behind the peer's answer, of which this is to be no part.
    const bool answered = peer_->inventories > std::exchange(asked, peer_->inventories);
    if (!answered || gaps == 5 || !Same()) return;
    ++gaps;
    AppendThereOnly();
    repairer_->NotifyGap(id_);
  };
  std::atomic<int> said{0}, said_wrongly{0};
  membership_.SetOnReport([&](const SyncReport& report) {
    if (!report.node_synced) return;
    ++said;
    if (!Same()) ++said_wrongly;
  });
  Start();
  ASSERT_TRUE(Await([&] { return said > 0; })) << repairer_->progress().last_error;
  repairer_.reset();
  EXPECT_EQ(said_wrongly, 0);
  EXPECT_EQ(gaps, 5);
}

TEST_F(RepairerReportTest, ItIsTakenBackWhenAGapIsFoundLater) {
  Start();
  ASSERT_TRUE(Await([&] { return membership_.report().node_synced; }));
  std::atomic<bool> taken_back{false};
  membership_.SetOnReport([&](const SyncReport& report) {
    if (!report.node_synced) taken_back = true;
  });
  AppendThereOnly();
  repairer_->NotifyGap(id_);
  EXPECT_TRUE(Await([&] { return taken_back && membership_.report().node_synced; }));
  EXPECT_TRUE(Same());
}

}  // namespace
}  // namespace attic
