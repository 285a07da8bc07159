// The cases of cpu_local_cache_test.cc on the CUDA backend. Without a device the cases are skipped
// with the driver's reason, and what then must be refused is tested instead.
#include "gpu_worker/backend/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

#include "gpu_worker/backend/cuda_local_cache.h"
#include "gpu_worker/backend/make_backend.h"
#include "gpu_worker/kernels/device_memory.h"
#include "tests/unit/gpu_worker/local_cache_checker.h"

namespace attic::worker {
namespace {

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const absl::Status device = CheckDevice(); !device.ok()) {
      GTEST_SKIP() << "no CUDA device to run on: " << device;
    }
    absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend("cuda", pool_);
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }

  static absl::Status Append(LocalCache& cache, size_t count, float value) {
    const std::vector<float> rows(count * kCheckedShape.key_floats(), value);
    return cache.Append(0, count, Bytes(rows, 0, rows.size()), Bytes(rows, 0, rows.size()));
  }

  // The first element of the attention of a zero query.
  static float Attend(LocalCache& cache, const PartialView& other) {
    const std::vector<float> query(kCheckedShape.query_floats());
    std::vector<float> output(query.size()), log_sum_exp(kCheckedShape.q_heads);
    EXPECT_TRUE(cache.StartAttend(0, 1, query.data()).ok());
    EXPECT_TRUE(cache.FinishAttend(other, output.data(), log_sum_exp.data()).ok());
    return output[0];
  }

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_;
  LocalCacheOptions options_{.shape = kCheckedShape,
                             .layers = 1,
                             .sink_tokens = 1,
                             .window_tokens = 4,
                             .step_tokens_max = 8,
                             .element_type = ElementType::kFloat32};
};

TEST_F(CudaBackendTest, CachesMatchDenseAttentionOverSinkAndWindow) { CheckLocalCaches(*backend_); }

TEST_F(CudaBackendTest, RefusesStepsOverTheLimit) {
  const auto cache = *backend_->OpenCache(options_);
  EXPECT_TRUE(Append(*cache, 13, 1.0f).ok());
  EXPECT_EQ(Append(*cache, 1, 1.0f).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(CudaBackendTest, MergesTheOtherPart) {
  const auto cache = *backend_->OpenCache(options_);
  ASSERT_TRUE(Append(*cache, 1, 1.0f).ok());
  // One token here (log_sum_exp 0, value 1) and the mass of three of value 5 elsewhere.
  const std::vector<float> output(kCheckedShape.query_floats(), 5.0f);
  const std::vector<float> log_sum_exp(kCheckedShape.q_heads, std::log(3.0f));
  EXPECT_NEAR(Attend(*cache, {output.data(), log_sum_exp.data()}), 4.0f, 1e-5);
}

TEST_F(CudaBackendTest, ForksAreIndependent) {
  const auto cache = *backend_->OpenCache(options_);
  ASSERT_TRUE(Append(*cache, 1, 1.0f).ok());
  const auto fork = cache->Fork();
  ASSERT_TRUE(fork.ok());
  ASSERT_TRUE(Append(*cache, 1, 3.0f).ok());
  ASSERT_TRUE(Append(**fork, 1, 9.0f).ok());
  EXPECT_NEAR(Attend(*cache, {}), 2.0f, 1e-5);
  EXPECT_NEAR(Attend(**fork, {}), 5.0f, 1e-5);
}

TEST_F(CudaBackendTest, ProductsMatchTheHost) {
  std::mt19937_64 random(11);
  const std::unique_ptr<Backend> host = MakeCpuBackend(pool_);
  for (const size_t count : {1, 7, 33}) {
    const size_t outputs = 65, inputs = 130;
    const std::vector<float> weights = Normal(outputs * inputs, random);
    const std::vector<float> in = Normal(count * inputs, random);
    std::vector<float> expected = Normal(count * outputs, random), out = expected;
    const auto device_matrix = *backend_->LoadMatrix(weights, outputs, inputs);
    const auto host_matrix = *host->LoadMatrix(weights, outputs, inputs);
    for (const bool accumulate : {true, false}) {
      ASSERT_TRUE(
          backend_->Multiply(*device_matrix, in.data(), count, accumulate, out.data()).ok());
      ASSERT_TRUE(host->Multiply(*host_matrix, in.data(), count, accumulate, expected.data()).ok());
      for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 1e-4);
    }
  }
}

TEST(CudaBackendWithoutDeviceTest, EverythingIsUnavailable) {
  const absl::Status device = CheckDevice();
  if (device.ok()) GTEST_SKIP() << "there is a device";
  EXPECT_EQ(device.code(), absl::StatusCode::kUnavailable) << device;
  EXPECT_THAT(std::string(device.message()), testing::HasSubstr("CUDA device"));
  ThreadPool pool(1);
  EXPECT_EQ(MakeBackend("cuda", pool).status().code(), absl::StatusCode::kUnavailable);
  const LocalCacheOptions options{.shape = kCheckedShape, .layers = 1};
  EXPECT_EQ(CudaLocalCache::Create(options).status().code(), absl::StatusCode::kUnavailable);
}

TEST(CudaLocalCacheTest, RefusesHeadsTheKernelsDoNotTake) {
  LocalCacheOptions options{.shape = kCheckedShape, .layers = 1};
  options.shape.head_dim = 264;
  const absl::Status status = CudaLocalCache::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("head_dim: 264"));
}

}  // namespace
}  // namespace attic::worker
