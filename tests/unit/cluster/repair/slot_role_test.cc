#include "server/cluster/repair/slot_role.h"

#include <gtest/gtest.h>

#include <set>

namespace attic {
namespace {

constexpr NodeState kLive = NodeState::kLive, kRepairing = NodeState::kRepairing,
                    kDown = NodeState::kDown;

// Nodes a, b, c, d of these states; one slot of replicas a, b, c.
ClusterMap Map(const std::vector<NodeState>& states) {
  ClusterMap map{.cluster = "c", .epoch = 1};
  for (const NodeState state : states) {
    map.nodes.push_back({.id = std::string(1, static_cast<char>('a' + map.nodes.size())),
                         .address = "x:1",
                         .state = state});
  }
  map.slots = {{.replicas = {0, 1, 2}}};
  return map;
}

HeldShard Shard(int64_t watermark, uint32_t replicas = 2) {
  return {.session_id = "s", .replicas = replicas, .watermark = watermark};
}

Inventories Say(const std::map<uint32_t, std::optional<HeldShard>>& shards) {
  Inventories inventories;
  for (const auto& [node, shard] : shards) {
    ShardsById& held = inventories[node];
    if (shard.has_value()) held.emplace("s", *shard);
  }
  return inventories;
}

constexpr Closable kYes{true, true};

ShardAction ActionOf(const ClusterMap& map, uint32_t node, const std::optional<HeldShard>& own,
                     const Inventories& inventories, const Closable& closable = kYes) {
  return Decide("s", RoleIn(map, 0, node), own, inventories, closable, 2).action;
}

TEST(SlotRoleTest, AReplicaFillsFromLiveOnesOfItsRanks) {
  const ClusterMap map = Map({kLive, kRepairing, kLive, kLive});
  const auto decision =
      Decide("s", RoleIn(map, 0, 1), {}, Say({{0, Shard(5)}, {2, Shard(9)}}), {}, 2);
  EXPECT_EQ(decision.action, ShardAction::kFill);
  ASSERT_EQ(decision.sources.size(), 1);
  EXPECT_EQ(decision.sources[0].node, 0);
  EXPECT_EQ(decision.sources_watermark, 5);
  // Of too large a rank, unless there are three replicas.
  EXPECT_EQ(ActionOf(map, 2, {}, Say({{0, Shard(5)}})), ShardAction::kNone);
  EXPECT_EQ(ActionOf(map, 2, {}, Say({{0, Shard(5, 3)}})), ShardAction::kFill);
}

TEST(SlotRoleTest, ClosedIsWhatAllLiveOnesLackAndSaidSo) {
  const ClusterMap map = Map({kLive, kRepairing, kLive, kLive});
  EXPECT_EQ(ActionOf(map, 1, Shard(5), Say({{0, {}}})), ShardAction::kClose);
  EXPECT_EQ(ActionOf(map, 1, Shard(5), Say({{0, {}}}), {}), ShardAction::kNone);
  EXPECT_EQ(ActionOf(map, 1, Shard(5), Say({})), ShardAction::kNone);
  EXPECT_EQ(ActionOf(map, 1, Shard(5, 3), Say({{0, {}}})), ShardAction::kNone);
  EXPECT_EQ(ActionOf(map, 1, Shard(5, 3), Say({{0, {}}, {2, {}}})), ShardAction::kClose);
}

TEST(SlotRoleTest, NobodyClosesAloneOrWithoutLiveReplicas) {
  EXPECT_EQ(ActionOf(Map({kRepairing, kDown, kLive, kLive}), 0, Shard(5), Say({{2, {}}})),
            ShardAction::kNone);
  EXPECT_EQ(ActionOf(Map({kRepairing, kRepairing, kLive, kLive}), 0, Shard(5), Say({{1, {}}})),
            ShardAction::kNone);
  EXPECT_EQ(ActionOf(Map({kRepairing, kLive, kLive, kLive}), 0, Shard(5, 1), Say({{1, {}}})),
            ShardAction::kNone);
  EXPECT_EQ(ActionOf(Map({kLive, kRepairing, kLive, kLive}), 0, Shard(5), Say({{1, {}}})),
            ShardAction::kNone);
}

TEST(SlotRoleTest, ALiveNodeTakesNothingFromThoseThatRepair) {
  const ClusterMap map = Map({kLive, kRepairing, kLive, kLive});
  EXPECT_EQ(ActionOf(map, 0, Shard(5), Say({{1, Shard(9)}})), ShardAction::kNone);
  EXPECT_EQ(
      ActionOf(Map({kRepairing, kRepairing, kLive, kLive}), 0, Shard(5), Say({{1, Shard(9)}})),
      ShardAction::kFill);
}

TEST(SlotRoleTest, DroppedIsWhatAllOwnersHold) {
  const ClusterMap map = Map({kLive, kLive, kLive, kLive});
  const auto of_d = [&](const Inventories& inventories, const HeldShard& own = Shard(5)) {
    return ActionOf(map, 3, own, inventories, {});
  };
  EXPECT_EQ(of_d(Say({{0, Shard(5)}, {1, Shard(6)}})), ShardAction::kDrop);
  EXPECT_EQ(of_d(Say({{0, Shard(5)}, {1, Shard(4)}})), ShardAction::kNone);
  EXPECT_EQ(of_d(Say({{0, Shard(5)}, {1, {}}})), ShardAction::kNone);
  EXPECT_EQ(of_d(Say({{0, Shard(5)}})), ShardAction::kNone);
  HeldShard durable = Shard(5);
  durable.durability = Durability::kDurable;
  EXPECT_EQ(of_d(Say({{0, Shard(5)}, {1, Shard(6)}}), durable), ShardAction::kNone);
  EXPECT_EQ(of_d(Say({{0, {}}, {1, {}}})), ShardAction::kNone);
  EXPECT_EQ(ActionOf(map, 3, Shard(5), Say({{0, {}}, {1, {}}})), ShardAction::kClose);
  EXPECT_EQ(ActionOf(Map({kLive, kRepairing, kLive, kLive}), 3, Shard(5),
                     Say({{0, Shard(5)}, {1, Shard(5)}})),
            ShardAction::kNone);
  // A copy of too large a rank.
  EXPECT_EQ(ActionOf(map, 2, Shard(5), Say({{0, Shard(5)}, {1, Shard(5)}})), ShardAction::kDrop);
}

TEST(SlotRoleTest, AwaitsThoseWhoseWordCounts) {
  const auto awaits = [](const std::vector<NodeState>& states, uint32_t node,
                         const std::set<uint32_t>& known, bool await_down) {
    Inventories inventories;
    for (const uint32_t other : known) inventories[other];
    return Awaits(RoleIn(Map(states), 0, node), inventories, await_down);
  };
  EXPECT_FALSE(awaits({kLive, kRepairing, kLive, kLive}, 1, {0, 2}, true));
  EXPECT_TRUE(awaits({kLive, kRepairing, kLive, kLive}, 1, {0}, true));
  EXPECT_FALSE(awaits({kLive, kRepairing, kDown, kLive}, 1, {0}, true));
  // Shards of two replicas may be on b alone.
  EXPECT_TRUE(awaits({kRepairing, kDown, kLive, kLive}, 0, {2}, true));
  EXPECT_FALSE(awaits({kRepairing, kDown, kLive, kLive}, 0, {2}, false));
  EXPECT_TRUE(awaits({kRepairing, kRepairing, kLive, kLive}, 0, {2}, false));
  EXPECT_FALSE(awaits({kRepairing, kRepairing, kLive, kLive}, 0, {1, 2}, false));
  EXPECT_FALSE(awaits({kLive, kDown, kDown, kLive}, 0, {}, true));
}

}  // namespace
}  // namespace attic
