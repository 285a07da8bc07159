// What a node of a cluster takes in, and what a store that is none does.
#include "server/session/placement_rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "api/shard.h"
#include "server/session/session_store.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

OpenSessionRequest Shard(const std::string& session, const ShardId& shard, uint32_t slot) {
  Fingerprint fingerprint = ShardFingerprint(SmallFingerprint());
  return {.session_id = ShardSessionId(session, shard),
          .fingerprint = fingerprint,
          .stored_layers = {shard.layer},
          .placement = Placement{.slot = slot,
                                 .key = session,
                                 .replication = {.replicas = 3},
                                 .kv_head = shard.kv_head,
                                 .block = shard.block}};
}

OpenSessionRequest Manifest(const std::string& session, uint32_t slot) {
  return {.session_id = session,
          .fingerprint = SmallFingerprint(),
          .stored_layers = {0, 1},
          .placement = Placement{.slot = slot, .key = session, .replication = {.replicas = 2}}};
}

class NodeStoreTest : public ::testing::Test {
 protected:
  static std::unique_ptr<SessionStore> Make(bool node) {
    return SessionStore::Create({.threads = 1, .build_threads = 1, .node_of_cluster = node});
  }
  const std::unique_ptr<SessionStore> node_ = Make(true);
  const std::unique_ptr<SessionStore> single_ = Make(false);
};

TEST_F(NodeStoreTest, Opens) {
  EXPECT_TRUE(node_->OpenSession(Shard("book", {1, 0, 0}, 4)).ok());
  EXPECT_TRUE(node_->OpenSession(Shard("book", {1, 1, 7}, 4)).ok());
  EXPECT_TRUE(node_->OpenSession(Manifest("book", 4)).ok());

  OpenSessionRequest plain = Manifest("plain", 1);
  plain.placement.reset();
  EXPECT_TRUE(absl::IsFailedPrecondition(node_->OpenSession(plain).status()));
  EXPECT_TRUE(single_->OpenSession(plain).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(single_->OpenSession(Manifest("m", 1)).status()));
  OpenSessionRequest shard = Shard("book", {1, 0, 0}, 4);
  EXPECT_TRUE(absl::IsFailedPrecondition(single_->OpenSession(shard).status()));
  shard.placement.reset();
  EXPECT_TRUE(absl::IsFailedPrecondition(single_->OpenSession(shard).status()));
}

TEST_F(NodeStoreTest, IdShapeAndPlacementAgree) {
  std::vector<OpenSessionRequest> wrong;
  for (int i = 0; i < 6; ++i) wrong.push_back(Shard("book", {1, 1, 2}, 4));
  wrong[0].fingerprint = SmallFingerprint();
  wrong[1].stored_layers = {0};
  wrong[2].stored_layers = {0, 1};
  wrong[3].placement->kv_head = 0;
  wrong[4].placement->block = 0;
  wrong[5].session_id = "";
  wrong.push_back(Manifest("book", 4));
  wrong.back().placement->kv_head = 1;
  for (size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_TRUE(absl::IsInvalidArgument(node_->OpenSession(wrong[i]).status())) << i;
  }
  EXPECT_TRUE(node_->ListSessions("", 10).empty());
}

TEST_F(NodeStoreTest, ForksAreOfTheSameShard) {
  ASSERT_TRUE(node_->OpenSession(Shard("book", {1, 1, 2}, 4)).ok());
  ASSERT_TRUE(node_->OpenSession(Manifest("book", 4)).ok());
  const auto fork = [this](const std::string& id, const std::string& new_id) {
    return node_->ForkSession(id, {.new_session_id = new_id}).status();
  };
  EXPECT_TRUE(fork("book#1.1.2", "copy#1.1.2").ok());
  EXPECT_TRUE(absl::IsInvalidArgument(fork("book#1.1.2", "copy#1.0.2")));
  EXPECT_TRUE(absl::IsInvalidArgument(fork("book#1.1.2", "copy#1.1")));
  EXPECT_TRUE(absl::IsInvalidArgument(fork("book#1.1.2", "copy")));
  EXPECT_TRUE(absl::IsInvalidArgument(fork("book#1.1.2", "")));
  EXPECT_TRUE(absl::IsFailedPrecondition(fork("book", "copy")));
  EXPECT_TRUE(absl::IsFailedPrecondition(fork("book", "copy#1.1.2")));
  const auto placement = node_->PlacementOf("copy#1.1.2");
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(**placement, *Shard("book", {1, 1, 2}, 4).placement);
}

TEST_F(NodeStoreTest, ManifestsHoldNoTokens) {
  ASSERT_TRUE(node_->OpenSession(Manifest("book", 4)).ok());
  std::mt19937_64 random(1);
  const Tokens tokens = Tokens::Random(SmallFingerprint(), 3, random);
  EXPECT_TRUE(absl::IsFailedPrecondition(
      node_->Append(tokens.Batch("book", 0, 0), absl::InfiniteFuture()).status()));
  const std::vector<float> queries(4 * 16, 1.0f);
  const AttendItem item{.session_id = "book", .queries = queries};
  const auto answers = node_->Attend({&item, 1}, absl::InfiniteFuture());
  ASSERT_TRUE(answers.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(answers->front().status));
  const SearchRequest search{.session_id = "book", .k = 1, .queries = queries};
  EXPECT_TRUE(absl::IsFailedPrecondition(node_->Search(search, absl::InfiniteFuture()).status()));
}

TEST_F(NodeStoreTest, PlacementsAreFound) {
  ASSERT_TRUE(node_->OpenSession(Shard("book", {1, 0, 0}, 9)).ok());
  const auto found = node_->PlacementOf("book#1.0");
  ASSERT_TRUE(found.ok());
  // Outlives its session.
  ASSERT_TRUE(node_->CloseSession("book#1.0").ok());
  EXPECT_EQ((*found)->slot, 9u);
  EXPECT_TRUE(absl::IsNotFound(node_->PlacementOf("book#1.0").status()));
  ASSERT_TRUE(
      single_
          ->OpenSession(
              {.session_id = "plain", .fingerprint = SmallFingerprint(), .stored_layers = {0}})
          .ok());
  const auto none = single_->PlacementOf("plain");
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, nullptr);
  EXPECT_TRUE(single_->ListPlaced("", 10, {}).empty());
}

// Any slots, any pages, against all that was opened.
TEST_F(NodeStoreTest, ListsBySlotInPages) {
  std::mt19937_64 random(11);
  std::map<std::string, uint32_t> slots;
  std::vector<float> queries;
  for (uint32_t i = 0; i < 300; ++i) {
    const auto slot = static_cast<uint32_t>(random() % 8);
    const OpenSessionRequest request =
        i % 10 == 0 ? Manifest(absl::StrCat("s", i), slot)
                    : Shard(absl::StrCat("s", i), {i % 4, i % 2, i % 3}, slot);
    ASSERT_TRUE(node_->OpenSession(request).ok());
    slots[request.session_id] = slot;
  }
  const Tokens tokens = Tokens::Random(ShardFingerprint(SmallFingerprint()), 5, random);
  ASSERT_TRUE(node_->Append(tokens.Batch("s1#1.1.1", 1, 0), absl::InfiniteFuture()).ok());
  for (int round = 0; round < 50; ++round) {
    std::vector<uint32_t> asked;
    for (uint32_t slot = 0; slot < 10; ++slot) {
      if (round > 0 && random() % 2 == 0) asked.push_back(slot);
    }
    const size_t page_size = 1 + random() % 120;
    std::map<std::string, uint32_t> listed;
    std::string after;
    for (;;) {
      const auto page = node_->ListPlaced(after, page_size, asked);
      ASSERT_LE(page.size(), page_size);
      for (const PlacedSession& entry : page) {
        ASSERT_GT(entry.session_id, after);
        after = entry.session_id;
        listed[entry.session_id] = entry.slot;
        const bool manifest = !ParseShardSessionId(entry.session_id).has_value();
        EXPECT_EQ(entry.replicas, manifest ? 2u : 3u);
        EXPECT_EQ(entry.watermark, entry.session_id == "s1#1.1.1" ? 5 : 0);
        EXPECT_FALSE(entry.durable);
      }
      if (page.size() < page_size) break;
    }
    std::map<std::string, uint32_t> expected = slots;
    if (!asked.empty()) {
      std::erase_if(expected, [&](const auto& entry) {
        return std::find(asked.begin(), asked.end(), entry.second) == asked.end();
      });
    }
    ASSERT_EQ(listed, expected) << round;
  }
}

}  // namespace
}  // namespace attic
