#include "gpu_worker/backend/cpu_local_cache.h"

#include <gmock/gmock.h>
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

std::span<const std::byte> Bytes(const std::vector<float>& x, size_t begin, size_t count) {
  return std::as_bytes(std::span(x).subspan(begin, count));
}

const AttentionShape kShape{.q_heads = 6, .kv_heads = 2, .head_dim = 8, .logit_scale = 0.7f};
constexpr size_t kLayers = 2;

// Feeds random steps and compares every answer with dense attention over the positions held.
class Checker {
 public:
  Checker(const LocalCacheOptions& options, uint64_t seed)
      : options_(options), random_(seed), cache_(MakeCpuBackend(pool_)) {
    local_ = *cache_->OpenCache(options);
  }

  void Step(size_t count) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const std::vector<float> keys = Normal(count * kShape.key_floats(), random_);
      const std::vector<float> values = Normal(count * kShape.key_floats(), random_);
      keys_[layer].insert(keys_[layer].end(), keys.begin(), keys.end());
      values_[layer].insert(values_[layer].end(), values.begin(), values.end());
      ASSERT_TRUE(
          local_->Append(layer, count, Bytes(keys, 0, keys.size()), Bytes(values, 0, values.size()))
              .ok());
      Check(layer, 1 + random_() % count);
    }
    tokens_ += static_cast<int64_t>(count);
    local_->DropWindowBefore(tokens_ - options_.window_tokens);
    EXPECT_EQ(local_->window_begin(),
              std::max(options_.sink_tokens, tokens_ - options_.window_tokens));
    EXPECT_EQ(local_->token_count(kLayers - 1), tokens_);
    if (random_() % 4 == 0) local_ = *local_->Fork();
  }

 private:
  void Check(size_t layer, size_t count) {
    const std::vector<float> queries = Normal(count * kShape.query_floats(), random_);
    std::vector<float> output(queries.size()), log_sum_exp(count * kShape.q_heads);
    ASSERT_TRUE(local_->StartAttend(layer, count, queries.data()).ok());
    ASSERT_TRUE(local_->FinishAttend({}, output.data(), log_sum_exp.data()).ok());
    const int64_t end = local_->token_count(layer);
    for (size_t row = 0; row < count * kShape.q_heads; ++row) {
      const int64_t position = end - static_cast<int64_t>(count - row / kShape.q_heads);
      CheckRow(layer, position, row % kShape.q_heads, {queries.data() + row * 8, 8},
               {output.data() + row * 8, 8}, log_sum_exp[row]);
    }
  }

  void CheckRow(size_t layer, int64_t position, size_t head, std::span<const float> query,
                std::span<const float> output, float log_sum_exp) {
    std::vector<float> keys, values;
    for (int64_t t = 0; t <= position; ++t) {
      if (t >= options_.sink_tokens && t < local_->window_begin()) continue;
      const size_t at = (static_cast<size_t>(t) * 2 + head / kShape.group()) * 8;
      keys.insert(keys.end(), keys_[layer].begin() + at, keys_[layer].begin() + at + 8);
      values.insert(values.end(), values_[layer].begin() + at, values_[layer].begin() + at + 8);
    }
    std::vector<double> expected(8);
    const VectorsView k{std::as_bytes(std::span(keys)).data(), ElementType::kFloat32,
                        keys.size() / 8, 8};
    const VectorsView v{std::as_bytes(std::span(values)).data(), ElementType::kFloat32,
                        keys.size() / 8, 8};
    const double reference = ReferenceAttention(query, kShape.logit_scale, k, v, expected);
    ASSERT_NEAR(log_sum_exp, reference, 1e-4) << "position " << position << " head " << head;
    for (size_t i = 0; i < 8; ++i) ASSERT_NEAR(output[i], expected[i], 1e-4);
  }

  const LocalCacheOptions options_;
  std::mt19937_64 random_;
  ThreadPool pool_{2};
  std::unique_ptr<Backend> cache_;
  std::unique_ptr<LocalCache> local_;
  std::vector<float> keys_[kLayers], values_[kLayers];  // (tokens, kv_heads, head_dim)
  int64_t tokens_ = 0;
};

TEST(CpuLocalCacheTest, MatchesDenseAttentionOverSinkAndWindow) {
  const struct {
    int64_t sink, window, step;
  } cases[] = {{4, 32, 100}, {0, 16, 50}, {5, 1, 3}, {10, 300, 40}, {4, 5, 70}};
  for (const auto& c : cases) {
    const uint64_t seed = static_cast<uint64_t>(c.window);
    SCOPED_TRACE(testing::Message() << "window " << c.window << " seed " << seed);
    Checker checker({.shape = kShape,
                     .layers = kLayers,
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

class CpuLocalCacheApiTest : public testing::Test {
 protected:
  absl::Status Append(LocalCache& cache, size_t count, float value) {
    const std::vector<float> rows(count * kShape.key_floats(), value);
    return cache.Append(0, count, Bytes(rows, 0, rows.size()), Bytes(rows, 0, rows.size()));
  }
  // The first element of the attention of a zero query.
  float Attend(LocalCache& cache, const PartialView& other) {
    const std::vector<float> query(kShape.query_floats());
    std::vector<float> output(query.size()), log_sum_exp(kShape.q_heads);
    EXPECT_TRUE(cache.StartAttend(0, 1, query.data()).ok());
    EXPECT_TRUE(cache.FinishAttend(other, output.data(), log_sum_exp.data()).ok());
    return output[0];
  }

  ThreadPool pool_{1};
  LocalCacheOptions options_{.shape = kShape,
                             .layers = 1,
                             .sink_tokens = 1,
                             .window_tokens = 4,
                             .step_tokens_max = 8,
                             .element_type = ElementType::kFloat32};
};

TEST_F(CpuLocalCacheApiTest, RefusesStepsOverTheLimit) {
  CpuLocalCache cache(options_, pool_);
  EXPECT_TRUE(Append(cache, 13, 1.0f).ok());
  const absl::Status status = Append(cache, 1, 1.0f);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("step_tokens_max (8)"));
}

TEST_F(CpuLocalCacheApiTest, MergesTheOtherPart) {
  CpuLocalCache cache(options_, pool_);
  ASSERT_TRUE(Append(cache, 1, 1.0f).ok());
  // One token here (log_sum_exp 0, value 1) and the mass of three of value 5 elsewhere.
  const std::vector<float> output(kShape.query_floats(), 5.0f);
  const std::vector<float> log_sum_exp(kShape.q_heads, std::log(3.0f));
  EXPECT_NEAR(Attend(cache, {output.data(), log_sum_exp.data()}), 4.0f, 1e-5);
}

TEST_F(CpuLocalCacheApiTest, ForksAreIndependent) {
  CpuLocalCache cache(options_, pool_);
  ASSERT_TRUE(Append(cache, 1, 1.0f).ok());
  const auto fork = cache.Fork();
  ASSERT_TRUE(fork.ok());
  ASSERT_TRUE(Append(cache, 1, 3.0f).ok());
  ASSERT_TRUE(Append(**fork, 1, 9.0f).ok());
  EXPECT_NEAR(Attend(cache, {}), 2.0f, 1e-5);
  EXPECT_NEAR(Attend(**fork, {}), 5.0f, 1e-5);
}

}  // namespace
}  // namespace attic::worker
