#include "server/cluster/observed_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace attic {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const ClusterKeys kKeys("test");

EtcdEvent Put(const std::string& key, const std::string& value, int64_t revision = 1) {
  return {.entry = {.key = key,
                    .value = value,
                    .create_revision = revision,
                    .mod_revision = revision,
                    .lease = 7}};
}
EtcdEvent Deleted(const std::string& key) { return {.deleted = true, .entry = {.key = key}}; }

Member Node(const std::string& id, const std::string& boot_id) {
  return {.node_id = id, .address = id + ":1", .zone = "z", .capacity = 5, .boot_id = boot_id};
}

ClusterMap SmallMap(uint64_t epoch) {
  ClusterMap map;
  map.cluster = "test";
  map.epoch = epoch;
  map.nodes = {{.id = "a", .address = "a:1"}};
  map.slots = {{.replicas = {0}, .epoch = 1}};
  return map;
}

TEST(ObservedClusterTest, KeysAreUnderstood) {
  ObservedCluster cluster("test");
  cluster.Apply(Put(kKeys.Node("a"), EncodeRegistration(Node("a", "1"), false, {})));
  cluster.Apply(Put(kKeys.Node("b"), EncodeRegistration(Node("b", "2"), false, {})));
  cluster.Apply(Put(kKeys.Synced("b"), EncodeReport({.epoch = 4, .slots = {1, 3}}, "2")));
  cluster.Apply(Put(kKeys.Change("a"), EncodeChange(NodeChange::kDrain)));
  cluster.Apply(Put(kKeys.Change("c"), EncodeChange(NodeChange::kRemove)));
  cluster.Apply(Put(kKeys.Controller(), "a", 3));
  cluster.Apply(Put(kKeys.Rebalance(), "12"));
  cluster.Apply(Put(kKeys.Map(), EncodeMap(SmallMap(9)), 5));

  const ClusterView view = cluster.View(absl::UnixEpoch());
  ASSERT_EQ(view.members.size(), 2u);
  EXPECT_EQ(view.members[0].address, "a:1");
  EXPECT_EQ(view.members[1].synced_epoch, 4u);
  EXPECT_THAT(view.members[1].synced_slots, ElementsAre(1, 3));
  EXPECT_THAT(view.draining, ElementsAre("a"));
  EXPECT_THAT(view.removed, ElementsAre("c"));
  EXPECT_EQ(view.rebalance, 12u);
  ASSERT_TRUE(cluster.controller().has_value());
  EXPECT_EQ(cluster.controller()->node_id, "a");
  EXPECT_EQ(cluster.controller()->create_revision, 3);
  EXPECT_EQ(*cluster.map(), SmallMap(9));
  EXPECT_EQ(cluster.map_revision(), 5);
  ASSERT_EQ(cluster.registrations().size(), 2u);
  cluster.Apply(Put(kKeys.Node("a"), EncodeRegistration(Node("a", "1"), false, {}), 8));
  EXPECT_EQ(cluster.registrations().at("a").create_revision, 8);
  EXPECT_EQ(cluster.registrations().at("a").mod_revision, 8);
  EXPECT_EQ(cluster.registrations().at("a").lease, 7);

  for (const std::string& key :
       {kKeys.Node("b"), kKeys.Change("a"), kKeys.Change("c"), kKeys.Controller(), kKeys.Map()}) {
    cluster.Apply(Deleted(key));
  }
  EXPECT_EQ(cluster.View(absl::UnixEpoch()).members.size(), 1u);
  EXPECT_EQ(cluster.registrations().count("b"), 0u);
  EXPECT_THAT(cluster.View(absl::UnixEpoch()).draining, IsEmpty());
  EXPECT_FALSE(cluster.controller().has_value());
  EXPECT_EQ(cluster.map(), nullptr);
  EXPECT_EQ(cluster.map_revision(), 0);
}

TEST(ObservedClusterTest, AReportOfAnEarlierProcessDoesNotCount) {
  ObservedCluster cluster("test");
  cluster.Apply(Put(kKeys.Synced("a"), EncodeReport({.epoch = 4, .node_synced = true}, "1")));
  cluster.Apply(Put(kKeys.Node("a"), EncodeRegistration(Node("a", "2"), false, {})));
  EXPECT_FALSE(cluster.View(absl::UnixEpoch()).members[0].node_synced);
}

TEST(ObservedClusterTest, TheLargestEpochThatMembersKnow) {
  ObservedCluster cluster("test");
  EXPECT_EQ(cluster.EpochOfMembers(), 0u);
  cluster.Apply(Put(kKeys.Node("a"), EncodeRegistration(Node("a", "1"), false, {.map = 3})));
  cluster.Apply(Put(kKeys.Node("b"), EncodeRegistration(Node("b", "1"), false, {.map = 8})));
  cluster.Apply(Put(kKeys.Node("c"), EncodeRegistration(Node("c", "1"), true, {.map = 9})));
  EXPECT_EQ(cluster.EpochOfMembers(), 8u);
  cluster.Apply(Deleted(kKeys.Node("b")));
  EXPECT_EQ(cluster.EpochOfMembers(), 3u);
  // What is on a disk counts only where there is no map.
  cluster.Apply(Put(kKeys.Node("d"), EncodeRegistration(Node("d", "1"), false, {.saved = 20})));
  EXPECT_EQ(cluster.EpochOfMember("d"), 20u);
  EXPECT_EQ(cluster.EpochOfMembers(), 20u);
  cluster.Apply(Put(kKeys.Map(), EncodeMap(SmallMap(2)), 5));
  EXPECT_EQ(cluster.EpochOfMember("d"), 0u);
  EXPECT_EQ(cluster.EpochOfMembers(), 3u);
}

TEST(ObservedClusterTest, WhoLeavesIsNoMember) {
  ObservedCluster cluster("test");
  cluster.Apply(Put(kKeys.Node("a"), EncodeRegistration(Node("a", "1"), true, {})));
  EXPECT_THAT(cluster.members(), IsEmpty());
  EXPECT_THAT(cluster.leaving(), ElementsAre("a"));
  cluster.Apply(Deleted(kKeys.Node("a")));
  EXPECT_THAT(cluster.leaving(), IsEmpty());
}

TEST(ObservedClusterTest, AnOlderMapIsNotTaken) {
  ObservedCluster cluster("test");
  cluster.SetMap(std::make_shared<const ClusterMap>(SmallMap(9)), 5);
  cluster.Apply(Put(kKeys.Map(), EncodeMap(SmallMap(8)), 4));
  EXPECT_EQ(cluster.map()->epoch, 9u);
}

// Whoever can write there can say anything, but not end the process.
TEST(ObservedClusterTest, AnyBytesAreTaken) {
  constexpr uint64_t kSeed = 5;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937_64 random(kSeed);
  const std::vector<std::pair<std::string, std::string>> good = {
      {kKeys.Node("a"), EncodeRegistration(Node("a", "1"), false, {})},
      {kKeys.Synced("a"), EncodeReport({.epoch = 4, .slots = {1, 3}}, "1")},
      {kKeys.Map(), EncodeMap(SmallMap(9))},
      {kKeys.Rebalance(), "12"},
      {kKeys.Controller(), "a"},
      {kKeys.Change("a"), "drain"},
      {kKeys.prefix() + "other", "x"},
      {kKeys.prefix(), "x"}};
  ObservedCluster cluster("test");
  for (int i = 0; i < 20'000; ++i) {
    auto [key, value] = good[random() % good.size()];
    const size_t flips = random() % 4;
    for (size_t flip = 0; flip < flips && !value.empty(); ++flip) {
      value[random() % value.size()] ^= static_cast<char>(1 << random() % 8);
    }
    if (random() % 8 == 0) value.resize(random() % (value.size() + 1));
    cluster.Apply(Put(key, value, i + 1));
    if (cluster.map() != nullptr) EXPECT_TRUE(ValidateClusterMap(*cluster.map()).ok());
    cluster.View(absl::UnixEpoch());
  }
}

}  // namespace
}  // namespace attic
