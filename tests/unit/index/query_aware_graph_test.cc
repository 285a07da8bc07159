#include "server/index/graph/query_aware_graph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <string>

#include "tests/unit/index/attention_like_data.h"

namespace attic {
namespace {

std::shared_ptr<const QueryAwareGraph> Published(const QueryAwareGraphBuilder& builder,
                                                 const VectorsView& vectors,
                                                 std::span<const float> training) {
  auto graph = builder.Publish(vectors, training);
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *graph;
}

double RecallOf(std::span<const ScoredNode> found, std::span<const ScoredNode> truth) {
  std::set<uint32_t> nodes;
  for (const ScoredNode& node : found) nodes.insert(node.node);
  size_t hits = 0;
  for (const ScoredNode& node : truth) hits += nodes.count(node.node);
  return static_cast<double>(hits) / truth.size();
}

struct Quality {
  double recall = 0;
  double visits = 0;
};

// Mean recall@10 and visits over queries [begin, end).
Quality Measure(const QueryAwareGraph& graph, const AttentionLikeData& data,
                const VectorsView& vectors, size_t begin, size_t end, size_t ef) {
  const VectorsView rows = vectors.rows(0, graph.node_count());
  const auto truth = ExactNeighbors(data.query(begin), end - begin, rows, 10);
  GraphSearchScratch scratch;
  std::vector<ScoredNode> best;
  Quality quality;
  uint64_t visits = 0;
  for (size_t i = begin; i < end; ++i) {
    graph.Search(data.query(i), vectors, ef, scratch, best, visits);
    EXPECT_TRUE(std::is_sorted(best.begin(), best.end(), BetterNode));
    best.resize(std::min<size_t>(best.size(), 10));
    quality.recall += RecallOf(best, std::span(truth).subspan((i - begin) * 10, 10));
  }
  quality.recall /= end - begin;
  quality.visits = static_cast<double>(visits) / (end - begin);
  return quality;
}

TEST(QueryAwareGraphTest, TrainingQueriesRaiseRecallOfUnseenQueries) {
  auto random = SeededRandom(7);
  const auto data = MakeAttentionLikeData(12000, 900, 32, random);
  const std::span<const float> training(data.queries.data(), 800 * data.dim);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto plain = Published(builder, data.keys_view(), {});
  const auto taught = Published(builder, data.keys_view(), training);

  const Quality without = Measure(*plain, data, data.keys_view(), 800, 900, 32);
  const Quality with = Measure(*taught, data, data.keys_view(), 800, 900, 32);
  std::printf("recall@10 without %.3f (%.0f visits), with training %.3f (%.0f visits)\n",
              without.recall, without.visits, with.recall, with.visits);
  EXPECT_GE(with.recall, 0.95);
  EXPECT_LE(without.recall, with.recall - 0.1);
  EXPECT_LT(with.visits, 0.15 * data.key_count());
}

TEST(QueryAwareGraphTest, FullWidthFindsEverythingReachable) {
  auto random = SeededRandom(8);
  const auto data = MakeAttentionLikeData(2000, 60, 24, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto graph =
      Published(builder, data.keys_view(), std::span(data.queries).first(40 * data.dim));
  EXPECT_GE(Measure(*graph, data, data.keys_view(), 40, 60, 2000).recall, 0.999);
}

TEST(QueryAwareGraphTest, GrowsAndLeavesPublishedGraphsAlone) {
  auto random = SeededRandom(9);
  const auto data = MakeAttentionLikeData(9000, 400, 32, random);
  const std::span<const float> training(data.queries.data(), 350 * data.dim);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view().rows(0, 1500)).ok());
  EXPECT_EQ(builder.node_count(), 1500u);
  const auto early = Published(builder, data.keys_view(), training);
  const Quality early_before = Measure(*early, data, data.keys_view(), 350, 400, 40);

  for (const size_t count : {1500u, 1501u, 4000u, 9000u}) {
    ASSERT_TRUE(builder.Insert(data.keys_view().rows(0, count)).ok());
    EXPECT_EQ(builder.node_count(), count);
  }
  const auto late = Published(builder, data.keys_view(), training);
  EXPECT_EQ(early->node_count(), 1500u);
  EXPECT_EQ(late->node_count(), 9000u);
  EXPECT_GE(Measure(*late, data, data.keys_view(), 350, 400, 64).recall, 0.9);
  const Quality early_after = Measure(*early, data, data.keys_view(), 350, 400, 40);
  EXPECT_EQ(early_before.recall, early_after.recall);
  EXPECT_EQ(early_before.visits, early_after.visits);
  EXPECT_GT(late->memory_bytes(), early->memory_bytes());
  EXPECT_GT(builder.memory_bytes(), 9000 * 2 * GraphOptions().links_per_node * sizeof(uint32_t));
}

TEST(QueryAwareGraphTest, CopiesOfRowsCostMemoryAndGainNothing) {
  auto random = SeededRandom(9);
  const auto data = MakeAttentionLikeData(3000, 400, 40, random);
  double recall[2];
  uint64_t bytes[2];
  for (const bool copy_rows : {false, true}) {
    QueryAwareGraphBuilder builder(data.dim, GraphOptions{.copy_rows = copy_rows});
    ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
    const auto graph =
        Published(builder, data.keys_view(), std::span(data.queries).first(350 * data.dim));
    recall[copy_rows] = Measure(*graph, data, data.keys_view(), 350, 400, 64).recall;
    bytes[copy_rows] = builder.memory_bytes();
  }
  std::printf("recall %.4f without copies, %.4f with\n", recall[0], recall[1]);
  EXPECT_NEAR(recall[0], recall[1], 0.02);
  // Each row is replaced by its number and augmenting element.
  EXPECT_EQ(bytes[1] - bytes[0], (data.keys.size() - data.key_count()) * sizeof(float));
}

TEST(QueryAwareGraphTest, EveryElementType) {
  auto random = SeededRandom(10);
  const auto data = MakeAttentionLikeData(3000, 400, 40, random);
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
    std::vector<std::byte> bytes(data.keys.size() * ElementBytes(type));
    FromFloat32(data.keys, type, bytes.data());
    const VectorsView vectors{bytes.data(), type, data.key_count(), data.dim};
    QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
    ASSERT_TRUE(builder.Insert(vectors).ok());
    const auto graph = Published(builder, vectors, std::span(data.queries).first(350 * data.dim));
    EXPECT_GE(Measure(*graph, data, vectors, 350, 400, 64).recall, 0.95) << ElementTypeName(type);
  }
}

TEST(QueryAwareGraphTest, LargerNormsThanTheFirstInsertAreStillFound) {
  auto random = SeededRandom(11);
  auto data = MakeAttentionLikeData(2000, 300, 16, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view().rows(0, 1000)).ok());
  for (size_t i = 1000 * data.dim; i < data.keys.size(); ++i) data.keys[i] *= 5.0f;
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto graph =
      Published(builder, data.keys_view(), std::span(data.queries).first(250 * data.dim));
  EXPECT_GE(Measure(*graph, data, data.keys_view(), 250, 300, 64).recall, 0.95);
}

TEST(QueryAwareGraphTest, SmallAndDegenerateGraphs) {
  const std::vector<float> query = {1.0f, 2.0f};
  GraphSearchScratch scratch;
  std::vector<ScoredNode> best;
  uint64_t visits = 0;
  QueryAwareGraphBuilder empty(2, GraphOptions{.copy_rows = true});
  const VectorsView none{nullptr, ElementType::kFloat32, 0, 2};
  ASSERT_TRUE(empty.Insert(none).ok());
  Published(empty, none, query)->Search(query.data(), none, 5, scratch, best, visits);
  EXPECT_TRUE(best.empty());
  EXPECT_TRUE(empty.SearchPlainHnsw(query.data(), 3, 10).empty());

  const std::vector<float> one = {3.0f, 4.0f};
  const VectorsView single{reinterpret_cast<const std::byte*>(one.data()), ElementType::kFloat32, 1,
                           2};
  QueryAwareGraphBuilder builder(2, GraphOptions{});
  ASSERT_TRUE(builder.Insert(single).ok());
  for (const auto& training : {std::vector<float>{}, query}) {
    Published(builder, single, training)->Search(query.data(), single, 5, scratch, best, visits);
    ASSERT_EQ(best.size(), 1u);
    EXPECT_EQ(best[0].node, 0u);
    EXPECT_FLOAT_EQ(best[0].score, 11.0f);
  }
}

TEST(QueryAwareGraphTest, DuplicatesAndZerosAreAllFound) {
  // 700 rows of three distinct values, one of them zero.
  std::vector<float> rows(700 * 4, 0.0f);
  for (size_t i = 0; i < 700; ++i) {
    if (i % 3 == 1) rows[i * 4] = 1.0f;
    if (i % 3 == 2) rows[i * 4 + 1] = 2.0f;
  }
  const VectorsView vectors{reinterpret_cast<const std::byte*>(rows.data()), ElementType::kFloat32,
                            700, 4};
  const std::vector<float> queries = {1.0f, 0.5f, 0, 0, 0.5f, 1.0f, 0, 0};
  QueryAwareGraphBuilder builder(4, GraphOptions{});
  ASSERT_TRUE(builder.Insert(vectors).ok());
  const auto graph = Published(builder, vectors, queries);
  GraphSearchScratch scratch;
  std::vector<ScoredNode> best;
  uint64_t visits = 0;
  graph->Search(queries.data() + 4, vectors, 50, scratch, best, visits);
  ASSERT_EQ(best.size(), 50u);
  for (const ScoredNode& node : best) EXPECT_EQ(node.score, 2.0f);
}

TEST(QueryAwareGraphTest, NotANumberNeverWins) {
  auto random = SeededRandom(12);
  auto data = MakeAttentionLikeData(500, 100, 8, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto graph = Published(builder, data.keys_view(), data.queries);
  // Rows that overflow against this query: infinity minus infinity.
  const std::vector<float> query(8, std::numeric_limits<float>::infinity());
  GraphSearchScratch scratch;
  std::vector<ScoredNode> best;
  uint64_t visits = 0;
  graph->Search(query.data(), data.keys_view(), 20, scratch, best, visits);
  for (const ScoredNode& node : best) EXPECT_EQ(node.score, node.score);
}

TEST(QueryAwareGraphTest, LimitsAndShapesAreErrors) {
  auto random = SeededRandom(13);
  const auto data = MakeAttentionLikeData(300, 10, 8, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{.nodes_max = 250});
  const absl::Status status = builder.Insert(data.keys_view());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("nodes_max"), std::string::npos) << status;
  EXPECT_EQ(builder.node_count(), 0u);
  ASSERT_TRUE(builder.Insert(data.keys_view().rows(0, 250)).ok());
  VectorsView wrong = data.keys_view();
  wrong.dim = 4;
  EXPECT_EQ(builder.Insert(wrong).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(builder.Publish(wrong, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(builder.Publish(data.keys_view().rows(0, 100), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(builder.Publish(data.keys_view(), std::span(data.queries).first(5)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(QueryAwareGraphTest, PlainHnswFindsKeysByTheirOwnDirection) {
  auto random = SeededRandom(14);
  const auto data = MakeAttentionLikeData(2000, 100, 32, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{.copy_rows = true});
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto truth = ExactNeighbors(data.queries.data(), 100, data.keys_view(), 10);
  double recall = 0;
  uint64_t visits = 0;
  for (size_t i = 0; i < 100; ++i) {
    const auto found = builder.SearchPlainHnsw(data.query(i), 10, 400, &visits);
    EXPECT_EQ(found.size(), 10u);
    recall += RecallOf(found, std::span(truth).subspan(i * 10, 10)) / 100;
  }
  EXPECT_GE(recall, 0.8);
  EXPECT_GT(visits, 100u * 400);
  EXPECT_LT(visits, 100u * 2000);
}

TEST(QueryAwareGraphTest, SearchDoesNotGrowItsBuffersAfterWarmUp) {
  auto random = SeededRandom(16);
  const auto data = MakeAttentionLikeData(4000, 400, 32, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto graph =
      Published(builder, data.keys_view(), std::span(data.queries).first(200 * data.dim));
  GraphSearchScratch scratch;
  std::vector<ScoredNode> best;
  uint64_t visits = 0;
  const auto capacities = [&] {
    return std::vector<size_t>{scratch.visited_round.capacity(),
                               scratch.frontier.capacity(),
                               scratch.best.capacity(),
                               scratch.packed_query.capacity(),
                               scratch.unvisited.capacity(),
                               scratch.scores.capacity(),
                               best.capacity()};
  };
  for (size_t i = 0; i < 50; ++i) {
    graph->Search(data.query(i), data.keys_view(), 64, scratch, best, visits);
  }
  const auto warm = capacities();
  for (size_t i = 50; i < 400; ++i) {
    graph->Search(data.query(i), data.keys_view(), 64, scratch, best, visits);
  }
  EXPECT_EQ(capacities(), warm);
}

TEST(QueryAwareGraphTest, VisitedRoundsSurviveWrapAround) {
  auto random = SeededRandom(17);
  const auto data = MakeAttentionLikeData(1000, 100, 16, random);
  QueryAwareGraphBuilder builder(data.dim, GraphOptions{});
  ASSERT_TRUE(builder.Insert(data.keys_view()).ok());
  const auto graph = Published(builder, data.keys_view(), data.queries);
  GraphSearchScratch fresh, old;
  std::vector<ScoredNode> expected, found;
  uint64_t visits = 0;
  graph->Search(data.query(0), data.keys_view(), 30, old, found, visits);
  old.round = std::numeric_limits<uint32_t>::max() - 1;
  for (size_t i = 0; i < 4; ++i) {
    graph->Search(data.query(i), data.keys_view(), 30, fresh, expected, visits);
    graph->Search(data.query(i), data.keys_view(), 30, old, found, visits);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t j = 0; j < found.size(); ++j) EXPECT_EQ(found[j].node, expected[j].node);
  }
}

}  // namespace
}  // namespace attic
