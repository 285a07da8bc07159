// A node fills itself from another one over the network.
#include "server/cluster/repair/node_repair.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "server/cluster/repair/remote_peer.h"
#include "tests/integration/node_service_fixture.h"

namespace attic {
namespace {

// The server is node a; node b is a store in this process.
class NodeRepairTest : public NodeServiceTest {
 protected:
  void SetUp() override {
    NodeServiceTest::SetUp();
    SessionStoreOptions options;
    options.threads = 1;
    options.build_threads = 1;
    options.node_of_cluster = true;
    options.index = options_.store.index;
    own_ = SessionStore::Create(options);
  }
  void Fill(const std::string& session, uint32_t rows) {
    MakeShard(session);
    const auto answers = Append({ShardRows(session, 0, rows)});
    ASSERT_EQ(answers[0].error().code(), 0) << answers[0].error().message();
  }
  ClusterMap RepairMap() {
    ClusterMap map = Map(kEpoch, kEpoch - 2);
    map.nodes[0].address = server_->address();
    map.nodes[0].boot_id = server_->boot_id();
    map.nodes[1].state = NodeState::kRepairing;
    return map;
  }
  static absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

  std::unique_ptr<SessionStore> own_;
  std::shared_ptr<ManualMembership> own_membership_ = std::make_shared<ManualMembership>("b");
};

TEST_F(NodeRepairTest, FillsAStore) {
  for (int i = 0; i < 5; ++i) Fill(absl::StrCat("book", i), 1000 + static_cast<uint32_t>(i));
  own_membership_->Set(RepairMap());
  const auto repair = StartNodeRepair(*own_, own_membership_, {}, Limits{});
  const absl::Time end = Soon();
  Mutex mutex;
  CondVar never;
  while (!own_membership_->report().node_synced && absl::Now() < end) {
    MutexLock lock(mutex);
    never.WaitFor(mutex, std::chrono::milliseconds(5));
  }
  const RepairProgress progress = repair->progress();
  ASSERT_TRUE(progress.node_synced) << progress.last_error;
  EXPECT_EQ(progress.shards_pulled, 5);
  EXPECT_GT(progress.bytes_pulled, 5 * 1000 * (kHeadDim + kValueDim) * sizeof(float));
  for (int i = 0; i < 5; ++i) {
    const std::string id = ShardOf(absl::StrCat("book", i));
    const auto mine = own_->DigestRows(id, Soon());
    const auto theirs = server_->store().DigestRows(id, Soon());
    ASSERT_TRUE(mine.ok() && theirs.ok()) << mine.status() << theirs.status();
    EXPECT_EQ(*mine, *theirs);
  }
}

TEST_F(NodeRepairTest, APeerSaysWhatItHolds) {
  Fill("book", 100);
  RemotePeer peer(server_->address(), Limits{});
  const std::vector<uint32_t> slots = {SlotOf("book")};
  const auto inventory = peer.Inventory(slots, kEpoch, Soon());
  ASSERT_TRUE(inventory.ok()) << inventory.status();
  EXPECT_EQ(inventory->boot_id, server_->boot_id());
  ASSERT_EQ(inventory->shards.size(), 1);
  EXPECT_EQ(
      inventory->shards[0],
      (HeldShard{
          .session_id = ShardOf("book"), .slot = SlotOf("book"), .replicas = 2, .watermark = 100}));
  EXPECT_TRUE(absl::IsUnavailable(peer.Inventory(slots, kEpoch + 1, Soon()).status()));
  const std::vector<uint32_t> other = {(SlotOf("book") + 1) % kSlots};
  const auto empty = peer.Inventory(other, kEpoch, Soon());
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_TRUE(empty->shards.empty());
  EXPECT_EQ(empty->boot_id, server_->boot_id());

  std::vector<std::string> asked = {ShardOf("book"), "book", "none#1.0"};
  const auto found = peer.Find(asked, kEpoch, Soon());
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->shards.size(), 1);
  EXPECT_EQ(found->shards[0], inventory->shards[0]);
  EXPECT_EQ(found->boot_id, server_->boot_id());
  EXPECT_TRUE(absl::IsUnavailable(peer.Find(asked, kEpoch + 1, Soon()).status()));
  for (int i = 0; i < 1500; ++i) asked.push_back(absl::StrCat("none", i, "#1.0"));
  asked.push_back(ShardOf("book"));
  EXPECT_EQ(peer.Find(asked, kEpoch, Soon())->shards.size(), 2);

  const auto taken = [](const auto&) { return absl::OkStatus(); };
  EXPECT_TRUE(absl::IsNotFound(peer.Digest("none#1.0", Soon()).status()));
  EXPECT_TRUE(absl::IsNotFound(peer.ReadRows("none#1.0", 0, 1, absl::Seconds(9), taken)));
  EXPECT_TRUE(absl::IsNotFound(peer.Export("none#1.0", absl::Seconds(9), taken)));
  EXPECT_TRUE(absl::IsOutOfRange(peer.ReadRows(ShardOf("book"), 0, 101, absl::Seconds(9), taken)));
  const auto refuse = [](const auto&) { return absl::AbortedError("enough"); };
  EXPECT_TRUE(absl::IsAborted(peer.ReadRows(ShardOf("book"), 0, 9, absl::Seconds(9), refuse)));
  EXPECT_TRUE(absl::IsAborted(peer.Export(ShardOf("book"), absl::Seconds(9), refuse)));
}

TEST_F(NodeRepairTest, FillsAStoreThatCutsSegmentsOtherwise) {
  SessionStoreOptions options;
  options.threads = 1;
  options.build_threads = 1;
  options.node_of_cluster = true;
  options.index.segment_tokens = 2 * options_.store.index.segment_tokens;
  own_ = SessionStore::Create(options);
  Fill("book", static_cast<uint32_t>(options_.store.index.segment_tokens) + 100);
  ASSERT_TRUE(server_->store().WaitForBuilds(Soon()).ok());
  own_membership_->Set(RepairMap());
  const auto repair = StartNodeRepair(*own_, own_membership_, {}, Limits{});
  const absl::Time end = Soon();
  Mutex mutex;
  CondVar never;
  while (!own_membership_->report().node_synced && absl::Now() < end) {
    MutexLock lock(mutex);
    never.WaitFor(mutex, std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(repair->progress().node_synced) << repair->progress().last_error;
  const auto mine = own_->DigestRows(ShardOf("book"), Soon());
  const auto theirs = server_->store().DigestRows(ShardOf("book"), Soon());
  ASSERT_TRUE(mine.ok() && theirs.ok()) << mine.status() << theirs.status();
  EXPECT_EQ(*mine, *theirs);
}

// Connections are taken by the kernel, and nobody answers.
TEST_F(NodeRepairTest, APeerThatHangsIsGivenUp) {
  const int listening = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listening, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listening, 8), 0);
  getsockname(listening, reinterpret_cast<sockaddr*>(&address), &size);
  RemotePeer peer(absl::StrCat("127.0.0.1:", ntohs(address.sin_port)), Limits{});
  const auto taken = [](const auto&) { return absl::OkStatus(); };
  const absl::Duration patience = absl::Milliseconds(200);
  const std::vector<uint32_t> slots = {1};
  const absl::Time begin = absl::Now();
  EXPECT_FALSE(peer.Inventory(slots, 1, absl::Now() + patience).ok());
  EXPECT_FALSE(peer.Digest("s#1.0", absl::Now() + patience).ok());
  EXPECT_FALSE(peer.ReadRows("s#1.0", 0, 1, patience, taken).ok());
  EXPECT_FALSE(peer.Export("s#1.0", patience, taken).ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  close(listening);
}

}  // namespace
}  // namespace attic
