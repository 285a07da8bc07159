#include "api/cluster_map.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace attic {
namespace {

ClusterMap ThreeNodes() {
  ClusterMap map{.cluster = "attic", .epoch = 7};
  for (const char* id : {"a", "b", "c"}) map.nodes.push_back({.id = id, .address = "host:1"});
  map.slots.push_back({.replicas = {0, 2}, .epoch = 7});
  map.slots.push_back({.replicas = {1}, .incoming = {2, 0}, .incoming_ranks = {0, 1}, .epoch = 3});
  map.slots.push_back({.replicas = {1}, .incoming = {2}});
  return map;
}

TEST(ClusterMapTest, ValidMaps) {
  EXPECT_EQ(ValidateClusterMap(ThreeNodes()), absl::OkStatus());
  EXPECT_EQ(ThreeNodes().FindNode("b"), 1);
  EXPECT_EQ(ThreeNodes().FindNode("bb"), -1);
}

TEST(ClusterMapTest, InvalidMaps) {
  const std::function<void(ClusterMap&)> errors[] = {
      [](ClusterMap& map) { map.slots.clear(); },
      [](ClusterMap& map) { map.slots.resize(kClusterSlotsMax + 1); },
      [](ClusterMap& map) { map.replicas_default = 0; },
      [](ClusterMap& map) { map.replicas_default = kReplicasMax + 1; },
      [](ClusterMap& map) { map.nodes[1].id = map.nodes[0].id; },
      [](ClusterMap& map) { map.nodes[1].id.clear(); },
      [](ClusterMap& map) { map.nodes[2].address.clear(); },
      [](ClusterMap& map) { map.nodes[2].state_epoch = 8; },
      [](ClusterMap& map) { map.slots[0].epoch = 8; },
      [](ClusterMap& map) {
        map.slots[0].replicas = {0, 3};
      },
      [](ClusterMap& map) {
        map.slots[0].replicas = {0, 0};
      },
      [](ClusterMap& map) {
        map.slots[0].replicas = {0, 1, 2, 3};
      },
      [](ClusterMap& map) {
        map.slots[1].incoming = {2, 1};
      },
      [](ClusterMap& map) { map.slots[1].incoming_ranks = {0}; },
      [](ClusterMap& map) {
        map.slots[1].incoming_ranks = {1, 1};
      },
      [](ClusterMap& map) {
        map.slots[1].incoming_ranks = {0, 2};
      },
      [](ClusterMap& map) { map.slots[0].incoming_ranks = {0}; },
  };
  for (const auto& error : errors) {
    ClusterMap map = ThreeNodes();
    error(map);
    EXPECT_EQ(ValidateClusterMap(map).code(), absl::StatusCode::kInvalidArgument)
        << &error - errors;
  }
}

TEST(ClusterMapTest, RanksOfSessionsAndOfIncomingNodes) {
  const ClusterMap map = ThreeNodes();
  EXPECT_EQ(ReplicasOf(map.slots[0], 1).size(), 1u);
  EXPECT_EQ(ReplicasOf(map.slots[0], 3).size(), 2u);
  EXPECT_EQ(IncomingRank(map.slots[1], 1), 1u);
  EXPECT_EQ(IncomingRank(map.slots[2], 0), 0u) << "not known: all of the slot";
}

}  // namespace
}  // namespace attic
