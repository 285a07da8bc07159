// What every backend's local cache is tested with: random steps compared with dense attention over
// the positions held.
#ifndef ATTIC_TESTS_UNIT_GPU_WORKER_LOCAL_CACHE_CHECKER_H_
#define ATTIC_TESTS_UNIT_GPU_WORKER_LOCAL_CACHE_CHECKER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "attention/exact_attention.h"
#include "gpu_worker/backend/backend.h"

namespace attic::worker {

inline std::vector<float> Normal(size_t count, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

inline std::span<const std::byte> Bytes(const std::vector<float>& x, size_t begin, size_t count) {
  return std::as_bytes(std::span(x).subspan(begin, count));
}

inline const AttentionShape kCheckedShape{
    .q_heads = 6, .kv_heads = 2, .head_dim = 8, .logit_scale = 0.7f};
inline constexpr size_t kCheckedLayers = 2;

// Feeds random steps and compares every answer with dense attention over the positions held.
class LocalCacheChecker {
 public:
  // `backend` must outlive the checker.
  LocalCacheChecker(Backend& backend, const LocalCacheOptions& options, uint64_t seed)
      : options_(options), random_(seed), cache_(*backend.OpenCache(options)) {}

  void Step(size_t count) {
    for (size_t layer = 0; layer < kCheckedLayers; ++layer) {
      const std::vector<float> keys = Normal(count * kCheckedShape.key_floats(), random_);
      const std::vector<float> values = Normal(count * kCheckedShape.key_floats(), random_);
      keys_[layer].insert(keys_[layer].end(), keys.begin(), keys.end());
      values_[layer].insert(values_[layer].end(), values.begin(), values.end());
      ASSERT_TRUE(
          cache_->Append(layer, count, Bytes(keys, 0, keys.size()), Bytes(values, 0, values.size()))
              .ok());
      Check(layer, 1 + random_() % count);
    }
    tokens_ += static_cast<int64_t>(count);
    cache_->DropWindowBefore(tokens_ - options_.window_tokens);
    EXPECT_EQ(cache_->window_begin(),
              std::max(options_.sink_tokens, tokens_ - options_.window_tokens));
    EXPECT_EQ(cache_->token_count(kCheckedLayers - 1), tokens_);
    if (random_() % 4 == 0) cache_ = *cache_->Fork();
  }

 private:
  void Check(size_t layer, size_t count) {
    const std::vector<float> queries = Normal(count * kCheckedShape.query_floats(), random_);
    std::vector<float> output(queries.size()), log_sum_exp(count * kCheckedShape.q_heads);
    ASSERT_TRUE(cache_->StartAttend(layer, count, queries.data()).ok());
    ASSERT_TRUE(cache_->FinishAttend({}, output.data(), log_sum_exp.data()).ok());
    const int64_t end = cache_->token_count(layer);
    for (size_t row = 0; row < count * kCheckedShape.q_heads; ++row) {
      const int64_t position = end - static_cast<int64_t>(count - row / kCheckedShape.q_heads);
      CheckRow(layer, position, row % kCheckedShape.q_heads, {queries.data() + row * 8, 8},
               {output.data() + row * 8, 8}, log_sum_exp[row]);
    }
  }

  void CheckRow(size_t layer, int64_t position, size_t head, std::span<const float> query,
                std::span<const float> output, float log_sum_exp) {
    std::vector<float> keys, values;
    for (int64_t t = 0; t <= position; ++t) {
      if (t >= options_.sink_tokens && t < cache_->window_begin()) continue;
      const size_t at = (static_cast<size_t>(t) * 2 + head / kCheckedShape.group()) * 8;
      keys.insert(keys.end(), keys_[layer].begin() + at, keys_[layer].begin() + at + 8);
      values.insert(values.end(), values_[layer].begin() + at, values_[layer].begin() + at + 8);
    }
    std::vector<double> expected(8);
    const VectorsView k{std::as_bytes(std::span(keys)).data(), ElementType::kFloat32,
                        keys.size() / 8, 8};
    const VectorsView v{std::as_bytes(std::span(values)).data(), ElementType::kFloat32,
                        keys.size() / 8, 8};
    const double reference = ReferenceAttention(query, kCheckedShape.logit_scale, k, v, expected);
    ASSERT_NEAR(log_sum_exp, reference, 1e-4) << "position " << position << " head " << head;
    for (size_t i = 0; i < 8; ++i) ASSERT_NEAR(output[i], expected[i], 1e-4);
  }

  const LocalCacheOptions options_;
  std::mt19937_64 random_;
  std::unique_ptr<LocalCache> cache_;
  std::vector<float> keys_[kCheckedLayers],
      values_[kCheckedLayers];  // (tokens, kv_heads, head_dim)
  int64_t tokens_ = 0;
};

// Runs the checker over sinks, windows and steps of several sizes.
inline void CheckLocalCaches(Backend& backend) {
  const struct {
    int64_t sink, window, step;
  } cases[] = {{4, 32, 100}, {0, 16, 50}, {5, 1, 3}, {10, 300, 40}, {4, 5, 70}};
  for (const auto& c : cases) {
    const uint64_t seed = static_cast<uint64_t>(c.window);
    SCOPED_TRACE(testing::Message() << "window " << c.window << " seed " << seed);
    LocalCacheChecker checker(backend,
                              {.shape = kCheckedShape,
                               .layers = kCheckedLayers,
                               .sink_tokens = c.sink,
                               .window_tokens = c.window,
                               .step_tokens_max = c.step,
                               .element_type = ElementType::kFloat32},
                              seed);
    std::mt19937_64 random(seed);
    for (int i = 0; i < 12; ++i) {
      ASSERT_NO_FATAL_FAILURE(
          checker.Step(i % 3 == 0 ? 1 : 1 + random() % static_cast<size_t>(c.step)));
    }
  }
}

}  // namespace attic::worker

#endif  // ATTIC_TESTS_UNIT_GPU_WORKER_LOCAL_CACHE_CHECKER_H_
