#include "gpu_worker/model/sliding_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "attention/exact_attention.h"

namespace attic::worker {
namespace {

std::vector<float> Normal(size_t count, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

VectorsView View(const std::vector<float>& rows, size_t dim) {
  return {reinterpret_cast<const std::byte*>(rows.data()), ElementType::kFloat32, rows.size() / dim,
          dim};
}

struct Tokens {
  std::vector<float> keys, values, queries;  // (count, heads, head_dim)
};

// What head `head` of token t must give: dense attention over its window, in double.
std::vector<double> Expected(const AttentionShape& shape, const Tokens& tokens, size_t window,
                             size_t t, size_t head) {
  std::vector<float> keys, values;
  for (size_t s = t + 1 > window ? t + 1 - window : 0; s <= t; ++s) {
    const size_t at = (s * shape.kv_heads + head / shape.group()) * shape.head_dim;
    keys.insert(keys.end(), tokens.keys.begin() + at, tokens.keys.begin() + at + shape.head_dim);
    values.insert(values.end(), tokens.values.begin() + at,
                  tokens.values.begin() + at + shape.head_dim);
  }
  std::vector<double> output(shape.head_dim);
  const float* query = tokens.queries.data() + (t * shape.q_heads + head) * shape.head_dim;
  ReferenceAttention({query, shape.head_dim}, shape.logit_scale, View(keys, shape.head_dim),
                     View(values, shape.head_dim), output);
  return output;
}

void CheckWindow(size_t window, uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "window " << window << " seed " << seed);
  const AttentionShape shape{.q_heads = 6, .kv_heads = 2, .head_dim = 8, .logit_scale = 0.9f};
  const size_t count = 150;
  std::mt19937_64 random(seed);
  Tokens tokens{Normal(count * shape.key_floats(), random),
                Normal(count * shape.key_floats(), random),
                Normal(count * shape.query_floats(), random)};
  SlidingCache cache(shape, window);
  std::vector<float> scratch(cache.scratch_floats());
  std::vector<float> output(count * shape.query_floats());
  for (size_t t = 0; t < count;) {
    const size_t chunk = std::min<size_t>(1 + random() % 60, count - t);
    cache.Reserve(chunk);
    std::copy_n(tokens.keys.begin() + t * shape.key_floats(), chunk * shape.key_floats(),
                cache.keys());
    std::copy_n(tokens.values.begin() + t * shape.key_floats(), chunk * shape.key_floats(),
                cache.values());
    const size_t middle = random() % (chunk + 1);
    for (const auto& [begin, end] : {std::pair(size_t{0}, middle), std::pair(middle, chunk)}) {
      const size_t offset = (t + begin) * shape.query_floats();
      cache.Attend(begin, end, tokens.queries.data() + offset, output.data() + offset,
                   scratch.data());
    }
    cache.Advance(chunk);
    if (random() % 2 == 0) cache = cache.Fork();
    t += chunk;
  }
  for (size_t t = 0; t < count; ++t) {
    for (size_t h = 0; h < shape.q_heads; ++h) {
      const std::vector<double> expected = Expected(shape, tokens, window, t, h);
      for (size_t i = 0; i < shape.head_dim; ++i) {
        ASSERT_NEAR(output[(t * shape.q_heads + h) * shape.head_dim + i], expected[i], 1e-4)
            << "token " << t << " head " << h;
      }
    }
  }
}

TEST(SlidingAttentionTest, MatchesDenseAttentionOverTheWindow) {
  for (size_t window : {1, 2, 24, 33, 100, 1000}) CheckWindow(window, window);
}

}  // namespace
}  // namespace attic::worker
