#include "tests/unit/index/attention_like_data.h"

#include <cstdio>

namespace attic {
namespace {

constexpr size_t kTokensPerCluster = 64;
constexpr size_t kQueryTopics = 24;
constexpr float kClusterSpread = 1.0f;
constexpr float kKeySpread = 0.6f;
constexpr float kQueryShift = 1.0f;
constexpr float kTopicSpread = 0.8f;
constexpr float kQuerySpread = 0.35f;

std::vector<float> NormalRows(size_t count, size_t dim, float spread, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> rows(count * dim);
  for (float& x : rows) x = normal(random);
  return rows;
}

}  // namespace

std::mt19937_64 SeededRandom(uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return std::mt19937_64(seed);
}

AttentionLikeData MakeAttentionLikeData(size_t key_count, size_t query_count, size_t dim,
                                        std::mt19937_64& random) {
  AttentionLikeData data{.dim = dim};
  const size_t clusters = key_count / kTokensPerCluster + 1;
  const std::vector<float> centers = NormalRows(clusters, dim, kClusterSpread, random);
  data.keys = NormalRows(key_count, dim, kKeySpread, random);
  std::uniform_int_distribution<size_t> any_cluster(0, clusters - 1);
  for (size_t i = 0; i < key_count; ++i) {
    const size_t cluster = any_cluster(random);
    for (size_t d = 0; d < dim; ++d) data.keys[i * dim + d] += centers[cluster * dim + d];
  }
  const std::vector<float> shift = NormalRows(1, dim, kQueryShift, random);
  const std::vector<float> topics = NormalRows(kQueryTopics, dim, kTopicSpread, random);
  data.queries = NormalRows(query_count, dim, kQuerySpread, random);
  std::uniform_int_distribution<size_t> any_topic(0, kQueryTopics - 1);
  for (size_t i = 0; i < query_count; ++i) {
    const size_t topic = any_topic(random);
    for (size_t d = 0; d < dim; ++d) {
      data.queries[i * dim + d] += shift[d] + topics[topic * dim + d];
    }
  }
  return data;
}

}  // namespace attic
