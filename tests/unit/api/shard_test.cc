#include "api/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

namespace attic {
namespace {

using ::testing::Optional;

TEST(ShardTest, NamesAreReadBack) {
  EXPECT_EQ(ShardSessionId("book", {.layer = 3, .kv_head = 1}), "book#3.1");
  EXPECT_EQ(ShardSessionId("book", {.layer = 3, .kv_head = 1, .block = 2}), "book#3.1.2");
  std::mt19937_64 random(7);
  for (int i = 0; i < 1000; ++i) {
    const ShardId shard{.layer = static_cast<uint32_t>(random() % 512),
                        .kv_head = static_cast<uint32_t>(random() % 64),
                        .block = static_cast<uint32_t>(random() % 3)};
    EXPECT_THAT(ParseShardSessionId(ShardSessionId("a/b:c.d", shard)),
                Optional(ShardName{.session_id = "a/b:c.d", .shard = shard}));
  }
}

TEST(ShardTest, OtherNamesAreNoShards) {
  for (const char* id :
       {"", "book", "#1.2", "book#", "book#1", "book#1.", "book#1.2.", "book#1.2.0", "book#1.2.3.4",
        "book#01.2", "book#1.-2", "book#1.2 ", "book#+1.2", "book#4294967296.1", "a#b#1.2"}) {
    EXPECT_EQ(ParseShardSessionId(id), std::nullopt) << id;
  }
}

TEST(ShardTest, SlotsAreTheSameEverywhere) {
  // Data on disk and clients of other releases count on these.
  EXPECT_EQ(SlotOfShard("book", {.layer = 3, .kv_head = 1, .block = 0}, 4096), 295u);
  EXPECT_EQ(SlotOfManifest("book", 4096), 2268u);
}

TEST(ShardTest, SlotsAreSpreadEvenly) {
  constexpr uint32_t kSlots = 64;
  constexpr int kShards = 64'000;
  std::vector<int> shards(kSlots);
  for (int i = 0; i < kShards; ++i) {
    ++shards[SlotOfShard(
        "session-" + std::to_string(i / 256),
        {.layer = static_cast<uint32_t>(i / 8 % 32), .kv_head = static_cast<uint32_t>(i % 8)},
        kSlots)];
  }
  // 1,000 expected, standard deviation 32.
  for (const int n : shards) EXPECT_NEAR(n, kShards / static_cast<int>(kSlots), 160);
}

TEST(ShardTest, SessionsOfOnePrefixArePlacedByIt) {
  EXPECT_EQ(PlacementKey("book", {}), "book");
  std::vector<PrefixHash> hashes(2);
  hashes[0].fill(0xa5);
  EXPECT_EQ(PlacementKey("book", hashes), PlacementKey("other", {hashes.data(), 1}));
  EXPECT_EQ(PlacementKey("book", hashes).substr(0, 4), "a5a5");
}

TEST(ShardTest, AShardHasOneKvHead) {
  const Fingerprint shard = ShardFingerprint({.q_heads = 32, .kv_heads = 8, .head_dim = 128});
  EXPECT_EQ(shard.q_heads, 4u);
  EXPECT_EQ(shard.kv_heads, 1u);
  EXPECT_EQ(shard.head_dim, 128u);
}

}  // namespace
}  // namespace attic
