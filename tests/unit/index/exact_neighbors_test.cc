#include "server/index/graph/exact_neighbors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "attention/vector_kernels.h"
#include "tests/unit/index/attention_like_data.h"

namespace attic {
namespace {

TEST(ExactNeighborsTest, MatchesSortingAllScores) {
  auto random = SeededRandom(42);
  const auto data = MakeAttentionLikeData(2500, 70, 24, random);
  for (const size_t k : {1, 10, 100, 2500, 4000}) {
    const size_t length = std::min<size_t>(k, 2500);
    const auto best = ExactNeighbors(data.queries.data(), 70, data.keys_view(), k);
    ASSERT_EQ(best.size(), 70 * length);
    std::vector<float> scores(2500);
    for (size_t q = 0; q < 70; ++q) {
      ScoreVectors(data.query(q), 1, data.keys_view(), scores.data());
      std::vector<float> sorted = scores;
      std::sort(sorted.begin(), sorted.end(), std::greater<>());
      for (size_t i = 0; i < length; ++i) {
        const ScoredNode& node = best[q * length + i];
        EXPECT_NEAR(node.score, sorted[i], 1e-4);
        EXPECT_NEAR(node.score, scores[node.node], 1e-4);
      }
    }
  }
}

TEST(ExactNeighborsTest, EqualScoresAndNotANumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> rows = {nan, 1.0f, 2.0f, 1.0f, nan, 2.0f};
  const VectorsView vectors{reinterpret_cast<const std::byte*>(rows.data()), ElementType::kFloat32,
                            6, 1};
  const float query = 1.0f;
  const auto best = ExactNeighbors(&query, 1, vectors, 6);
  std::vector<uint32_t> nodes;
  for (const ScoredNode& node : best) nodes.push_back(node.node);
  EXPECT_EQ(nodes, (std::vector<uint32_t>{2, 5, 1, 3, 0, 4}));
  EXPECT_TRUE(ExactNeighbors(&query, 0, vectors, 3).empty());
  EXPECT_TRUE(ExactNeighbors(&query, 1, vectors, 0).empty());
}

}  // namespace
}  // namespace attic
