#include "gpu_worker/backend/cpu_local_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/unit/gpu_worker/local_cache_checker.h"

namespace attic::worker {
namespace {

TEST(CpuLocalCacheTest, MatchesDenseAttentionOverSinkAndWindow) {
  ThreadPool pool(2);
  const std::unique_ptr<Backend> backend = MakeCpuBackend(pool);
  CheckLocalCaches(*backend);
}

class CpuLocalCacheApiTest : public testing::Test {
 protected:
  absl::Status Append(LocalCache& cache, size_t count, float value) {
    const std::vector<float> rows(count * kCheckedShape.key_floats(), value);
    return cache.Append(0, count, Bytes(rows, 0, rows.size()), Bytes(rows, 0, rows.size()));
  }
  // The first element of the attention of a zero query.
  float Attend(LocalCache& cache, const PartialView& other) {
    const std::vector<float> query(kCheckedShape.query_floats());
    std::vector<float> output(query.size()), log_sum_exp(kCheckedShape.q_heads);
    EXPECT_TRUE(cache.StartAttend(0, 1, query.data()).ok());
    EXPECT_TRUE(cache.FinishAttend(other, output.data(), log_sum_exp.data()).ok());
    return output[0];
  }

  ThreadPool pool_{1};
  LocalCacheOptions options_{.shape = kCheckedShape,
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

TEST_F(CpuLocalCacheApiTest, SkipsAsIfTokensHadComeAndGone) {
  CpuLocalCache read(options_, pool_);
  ASSERT_TRUE(Append(read, 7, 1.0f).ok());
  read.DropWindowBefore(7);
  CpuLocalCache skipped(options_, pool_);
  ASSERT_TRUE(Append(skipped, 1, 1.0f).ok());
  skipped.SkipTo(7);
  for (CpuLocalCache* cache : {&read, &skipped}) {
    EXPECT_EQ(cache->token_count(0), 7);
    EXPECT_EQ(cache->window_begin(), 7);
    ASSERT_TRUE(Append(*cache, 3, 5.0f).ok());
    EXPECT_EQ(cache->token_count(0), 10);
  }
  EXPECT_NEAR(Attend(skipped, {}), Attend(read, {}), 1e-6);
  EXPECT_GT(Attend(skipped, {}), 1.0f);
}

TEST_F(CpuLocalCacheApiTest, MergesTheOtherPart) {
  CpuLocalCache cache(options_, pool_);
  ASSERT_TRUE(Append(cache, 1, 1.0f).ok());
  // One token here (log_sum_exp 0, value 1) and the mass of three of value 5 elsewhere.
  const std::vector<float> output(kCheckedShape.query_floats(), 5.0f);
  const std::vector<float> log_sum_exp(kCheckedShape.q_heads, std::log(3.0f));
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
