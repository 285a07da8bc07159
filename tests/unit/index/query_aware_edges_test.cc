#include "server/index/graph/query_aware_edges.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "attention/vector_kernels.h"
#include "tests/unit/index/attention_like_data.h"

namespace attic {
namespace {

uint32_t Root(std::vector<uint32_t>& parent, uint32_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

TEST(MinimumSpanningTreeTest, WeighsWhatKruskalsDoes) {
  auto random = SeededRandom(51);
  for (const size_t count : {0, 1, 2, 3, 17, 60}) {
    std::vector<float> distances(count * count, 0.0f);
    std::vector<std::tuple<float, uint32_t, uint32_t>> edges;
    for (uint32_t i = 0; i < count; ++i) {
      for (uint32_t j = 0; j < i; ++j) {
        const float distance = static_cast<float>(random() % 1000);
        distances[i * count + j] = distances[j * count + i] = distance;
        edges.emplace_back(distance, i, j);
      }
    }
    std::sort(edges.begin(), edges.end());
    std::vector<uint32_t> parent(count), joined(count);
    std::iota(parent.begin(), parent.end(), 0);
    joined = parent;
    double expected = 0, actual = 0;
    for (const auto& [distance, i, j] : edges) {
      if (Root(parent, i) == Root(parent, j)) continue;
      parent[Root(parent, i)] = Root(parent, j);
      expected += distance;
    }
    const auto tree = MinimumSpanningTree(distances, count);
    ASSERT_EQ(tree.size(), count == 0 ? 0 : count - 1);
    for (const auto& [a, b] : tree) {
      actual += distances[a * count + b];
      EXPECT_NE(Root(joined, a), Root(joined, b)) << "a cycle";
      joined[Root(joined, a)] = Root(joined, b);
    }
    EXPECT_EQ(actual, expected) << count << " points";
  }
}

TEST(SideEdgesTest, JoinEachQuerysBestAndAreSymmetricWhenUnbounded) {
  auto random = SeededRandom(52);
  const auto data = MakeAttentionLikeData(1000, 40, 16, random);
  const auto best = ExactNeighbors(data.queries.data(), 40, data.keys_view(), 30);
  const SideEdges side = BuildSideEdges(data.keys_view(), best, 30, 1000);
  std::set<std::pair<uint32_t, uint32_t>> edges;
  for (uint32_t node = 0; node < 1000; ++node) {
    for (const uint32_t to : side.of(node)) {
      EXPECT_NE(to, node);
      EXPECT_TRUE(edges.emplace(node, to).second) << "twice";
    }
  }
  for (const auto& [from, to] : edges) EXPECT_TRUE(edges.count({to, from}));
  for (size_t q = 0; q < 40; ++q) {
    std::set<uint32_t> list, reached = {best[q * 30].node};
    for (size_t i = 0; i < 30; ++i) list.insert(best[q * 30 + i].node);
    std::vector<uint32_t> open(reached.begin(), reached.end());
    while (!open.empty()) {
      const uint32_t node = open.back();
      open.pop_back();
      for (const uint32_t to : side.of(node)) {
        if (list.count(to) && reached.insert(to).second) open.push_back(to);
      }
    }
    EXPECT_EQ(reached, list) << "query " << q;
  }
}

TEST(SideEdgesTest, OverTheLimitTheMostProposedStay) {
  // Points on a line; the pair (0, 1) is best for three queries, the others for one.
  const std::vector<float> rows = {0.0f, 3.0f, 1.0f, -1.0f, -2.0f};
  const VectorsView vectors{reinterpret_cast<const std::byte*>(rows.data()), ElementType::kFloat32,
                            5, 1};
  const std::vector<ScoredNode> best = {{1, 0}, {0, 1}, {1, 0}, {0, 1}, {1, 1}, {0, 0},
                                        {1, 0}, {0, 2}, {1, 0}, {0, 3}, {1, 0}, {0, 4}};
  const SideEdges side = BuildSideEdges(vectors, best, 2, 2);
  ASSERT_EQ(side.of(0).size(), 2u);
  EXPECT_EQ(side.of(0)[0], 1u);
  EXPECT_EQ(side.of(0)[1], 2u);  // of those proposed once, one of the two shortest
  EXPECT_EQ(side.of(4).size(), 1u);
}

TEST(HotNodesTest, RanksByFirstPlacesThenByPlacesAmongTheFirst) {
  const std::vector<ScoredNode> best = {{9, 4}, {8, 2}, {7, 1}, {9, 4}, {8, 2}, {7, 3},
                                        {9, 3}, {8, 2}, {7, 0}, {9, 0}, {8, 5}, {7, 6}};
  EXPECT_EQ(HotNodes(best, 3, 4), (std::vector<uint32_t>{4, 0, 3, 2}));
  EXPECT_EQ(HotNodes(best, 3, 1), (std::vector<uint32_t>{4}));
  EXPECT_EQ(HotNodes(best, 3, 100).size(), 7u);
  EXPECT_TRUE(HotNodes({}, 3, 4).empty());
}

}  // namespace
}  // namespace attic
