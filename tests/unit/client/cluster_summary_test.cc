#include "client/cli/cluster_summary.h"

#include <gtest/gtest.h>

#include <random>

namespace attic::cli {
namespace {

// Nodes a, b (twice the capacity), c.
ClusterMap ThreeNodes() {
  ClusterMap map{.cluster = "test", .epoch = 3, .replicas_default = 2};
  map.nodes = {{.id = "a", .address = "a:1"},
               {.id = "b", .address = "b:1", .capacity = 2},
               {.id = "c", .address = "c:1"}};
  return map;
}

TEST(ClusterSummary, CountsByRole) {
  ClusterMap map = ThreeNodes();
  map.slots = {{.replicas = {0, 1}}, {.replicas = {1, 2}}, {.replicas = {1, 0}, .incoming = {2}}};
  const ClusterSummary summary = SummarizeCluster(map);
  EXPECT_EQ(summary.nodes[0].first, 1u);
  EXPECT_EQ(summary.nodes[0].other, 1u);
  EXPECT_EQ(summary.nodes[1].first, 2u);
  EXPECT_EQ(summary.nodes[1].other, 1u);
  EXPECT_EQ(summary.nodes[2].incoming, 1u);
  EXPECT_DOUBLE_EQ(summary.nodes[1].share, 0.5);
  EXPECT_DOUBLE_EQ(summary.nodes[1].fair_share, 0.5);
  EXPECT_DOUBLE_EQ(summary.nodes[2].fair_share, 0.25);
  EXPECT_EQ(summary.slots_lost, 0u);
  EXPECT_EQ(summary.slots_short, 0u);
  EXPECT_EQ(summary.slots_moving, 1u);
  const auto sentences = DescribeHealth(map, summary);
  ASSERT_EQ(sentences.size(), 1u);
  EXPECT_EQ(sentences[0], "1 slot is being copied to other nodes");
}

TEST(ClusterSummary, SaysWhatIsWrong) {
  ClusterMap map = ThreeNodes();
  map.nodes[0].state = NodeState::kDown;
  map.nodes[1].state = NodeState::kRepairing;
  map.slots = {{.replicas = {0, 1}}, {.replicas = {1, 2}}, {.replicas = {}}, {.replicas = {2, 0}}};
  const ClusterSummary summary = SummarizeCluster(map);
  EXPECT_EQ(summary.slots_lost, 2u);
  EXPECT_EQ(summary.slots_short, 4u);
  EXPECT_DOUBLE_EQ(summary.nodes[0].fair_share, 0);
  const auto sentences = DescribeHealth(map, summary);
  ASSERT_EQ(sentences.size(), 2u);
  EXPECT_EQ(sentences[0].rfind("2 slots have no live replica", 0), 0u) << sentences[0];
  EXPECT_EQ(sentences[1].rfind("2 slots have fewer live replicas", 0), 0u) << sentences[1];
}

TEST(ClusterSummary, NothingToDo) {
  ClusterMap map = ThreeNodes();
  map.slots = {{.replicas = {0, 1}}};
  EXPECT_EQ(DescribeHealth(map, SummarizeCluster(map)),
            std::vector<std::string>{"all slots have 2 live replicas"});
}

TEST(ClusterSummary, SharesAddUp) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 50; ++round) {
    ClusterMap map = ThreeNodes();
    for (int slot = 0; slot < 64; ++slot) {
      const auto first = static_cast<uint32_t>(random() % 3);
      map.slots.push_back({.replicas = {first, (first + 1) % 3}});
    }
    double share = 0;
    size_t held = 0;
    for (const NodeSummary& node : SummarizeCluster(map).nodes) {
      share += node.share;
      held += node.first + node.other;
    }
    EXPECT_NEAR(share, 1, 1e-12);
    EXPECT_EQ(held, 128u);
  }
}

}  // namespace
}  // namespace attic::cli
