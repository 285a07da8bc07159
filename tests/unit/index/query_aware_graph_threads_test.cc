// Small, because the thread sanitizer slows the building of graphs a hundredfold.
#include <gtest/gtest.h>

#include <thread>

#include "server/index/graph/query_aware_graph.h"
#include "tests/unit/index/attention_like_data.h"

namespace attic {
namespace {

constexpr size_t kFirstKeys = 400;
constexpr size_t kTraining = 80;
constexpr size_t kThreads = 3;

std::vector<uint32_t> FoundNodes(const QueryAwareGraph& graph, const AttentionLikeData& data) {
  GraphSearchScratch scratch;
  std::vector<ScoredNode> best;
  std::vector<uint32_t> nodes;
  uint64_t visits = 0;
  for (size_t i = kTraining; i < data.query_count(); ++i) {
    graph.Search(data.query(i), data.keys_view(), 20, scratch, best, visits);
    for (const ScoredNode& node : best) nodes.push_back(node.node);
  }
  return nodes;
}

TEST(QueryAwareGraphThreadsTest, SearchesWhileTheBuilderGrowsAndPublishes) {
  auto random = SeededRandom(15);
  const auto data = MakeAttentionLikeData(700, 120, 16, random);
  const std::span<const float> training(data.queries.data(), kTraining * data.dim);
  QueryAwareGraphBuilder builder(data.dim,
                                 GraphOptions{.links_per_node = 8, .construction_width = 20});
  ASSERT_TRUE(builder.Insert(data.keys_view().rows(0, kFirstKeys)).ok());
  const auto graph = builder.Publish(data.keys_view(), training);
  ASSERT_TRUE(graph.ok()) << graph.status();
  const std::vector<uint32_t> alone = FoundNodes(**graph, data);
  std::vector<std::vector<uint32_t>> together(kThreads);
  std::vector<std::thread> threads;
  for (auto& nodes : together) threads.emplace_back([&] { nodes = FoundNodes(**graph, data); });
  EXPECT_TRUE(builder.Insert(data.keys_view()).ok());
  EXPECT_TRUE(builder.Publish(data.keys_view(), training).ok());
  for (std::thread& thread : threads) thread.join();
  for (const auto& nodes : together) EXPECT_EQ(nodes, alone);
}

}  // namespace
}  // namespace attic
