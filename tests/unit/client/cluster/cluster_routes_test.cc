#include "client/cpp/cluster/cluster_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace attic {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ClusterMap MapOfOneSlot(std::vector<NodeState> states, SlotAssignment slot) {
  ClusterMap map{.cluster = "c", .epoch = 1};
  for (size_t i = 0; i < states.size(); ++i) {
    map.nodes.push_back(
        {.id = std::string(1, static_cast<char>('a' + i)), .address = "x", .state = states[i]});
  }
  map.slots = {std::move(slot)};
  return map;
}

TEST(ClusterRoutesTest, WritesGoToWhoIsThereAndReadsToWhoIsLive) {
  const ClusterMap map = MapOfOneSlot({NodeState::kLive, NodeState::kDown, NodeState::kRepairing,
                                       NodeState::kLive, NodeState::kDown},
                                      {.replicas = {2, 1, 0}, .incoming = {3, 4}});
  const SlotRoute all = RouteOf(map, 0, 3);
  EXPECT_THAT(all.writers, ElementsAre(2, 0));
  EXPECT_THAT(all.readers, ElementsAre(0));
  EXPECT_THAT(all.incoming, ElementsAre(3));
  EXPECT_EQ(all.copies, 3);
  const SlotRoute one = RouteOf(map, 0, 1);
  EXPECT_THAT(one.writers, ElementsAre(2));
  EXPECT_THAT(one.readers, IsEmpty());
  EXPECT_EQ(one.copies, 1);
  EXPECT_THAT(RouteOf(map, 1, 3).writers, IsEmpty());
}

TEST(ClusterRoutesTest, WhoJoinsASlotIsWrittenToAsIfItWereInIt) {
  const std::vector<NodeState> live(4, NodeState::kLive);
  SlotAssignment slot{.replicas = {0, 1}, .incoming = {2, 3}, .incoming_ranks = {0, 1}};
  EXPECT_THAT(RouteOf(MapOfOneSlot(live, slot), 0, 2).joining, IsEmpty());
  slot.joining = true;
  const SlotRoute two = RouteOf(MapOfOneSlot(live, slot), 0, 2);
  EXPECT_THAT(two.writers, ElementsAre(0, 1));
  EXPECT_THAT(two.joining, ElementsAre(2, 3));
  EXPECT_THAT(two.incoming, IsEmpty());
  // A session of one replica will not be on whoever takes the second rank.
  const SlotRoute one = RouteOf(MapOfOneSlot(live, slot), 0, 1);
  EXPECT_THAT(one.joining, ElementsAre(2));
  EXPECT_THAT(one.incoming, ElementsAre(3));
}

TEST(ClusterRoutesTest, PoliciesAskForSoManyAcknowledgements) {
  const SlotRoute route{.writers = {0, 1}, .readers = {0}, .incoming = {}, .copies = 3};
  EXPECT_EQ(AcksNeeded(AckPolicy::kOne, route, 0), 1);
  EXPECT_EQ(AcksNeeded(AckPolicy::kQuorum, route, 1), 2);  // who is down counts
  EXPECT_EQ(AcksNeeded(AckPolicy::kAll, route, 0), 2);     // who is down does not
  EXPECT_EQ(AcksNeeded(AckPolicy::kAll, route, 1), 1);
  EXPECT_EQ(AcksNeeded(AckPolicy::kAll, route, 2), 1);  // nobody is not enough
  EXPECT_EQ(AcksNeeded(AckPolicy::kAll, SlotRoute{}, 0), 1);
}

TEST(ClusterRoutesTest, BlocksCoverARangeOnce) {
  std::mt19937_64 random(std::random_device{}());
  for (int round = 0; round < 1000; ++round) {
    const auto shard_tokens = static_cast<int64_t>(256 * (1 + random() % 4));
    const auto begin = static_cast<int64_t>(random() % 5000);
    const auto end = begin + static_cast<int64_t>(random() % 3000);
    int64_t next = begin;
    for (const BlockStretch& block : BlocksOf(shard_tokens, {.begin = begin, .end = end})) {
      EXPECT_EQ(block.range.begin, next);
      EXPECT_EQ(block.block_begin, block.block * shard_tokens);
      EXPECT_GE(block.local().begin, 0);
      EXPECT_LE(block.local().end, shard_tokens);
      EXPECT_LE(block.local().begin, block.local().end);
      next = block.range.end;
    }
    EXPECT_EQ(next, end);
    EXPECT_EQ(BlocksOf(0, {.begin = begin, .end = end}).size(), 1);
  }
}

TEST(ClusterRoutesTest, ManifestsAreChecked) {
  SessionDescription manifest{
      .session_id = "s",
      .fingerprint = {.layers = 4, .q_heads = 4, .kv_heads = 2},
      .layers = {{.layer = 3}, {.layer = 1}},
      .placement = Placement{.slot = 0, .key = "k", .replication = {.replicas = 2}}};
  const auto info = SessionInfoOf(manifest);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_THAT(info->layers, ElementsAre(1, 3));
  EXPECT_TRUE(info->Stores(3));
  EXPECT_FALSE(info->Stores(2));
  EXPECT_EQ(info->placement_key, "k");
  manifest.placement->replication.replicas = 0;
  EXPECT_TRUE(absl::IsInternal(SessionInfoOf(manifest).status()));
  manifest.placement->replication.replicas = 1;
  manifest.fingerprint.kv_heads = 3;
  EXPECT_TRUE(absl::IsInternal(SessionInfoOf(manifest).status()));
  manifest.fingerprint.kv_heads = 0;
  EXPECT_TRUE(absl::IsInternal(SessionInfoOf(manifest).status()));
  manifest.fingerprint.kv_heads = 1;
  manifest.placement.reset();
  EXPECT_TRUE(absl::IsInternal(SessionInfoOf(manifest).status()));
}

}  // namespace
}  // namespace attic
