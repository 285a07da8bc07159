// The launchers of gpu_worker/kernels against the double-precision reference. Without a device the
// comparisons are skipped with the driver's reason; refusals are tested everywhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "attention/exact_attention.h"
#include "gpu_worker/kernels/cuda_status.h"
#include "gpu_worker/kernels/device_memory.h"
#include "gpu_worker/kernels/local_attention.h"

namespace attic::worker {
namespace {

std::vector<float> Normal(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

struct Case {
  uint32_t q_heads, kv_heads, head_dim;
  int64_t sink_count, window_count, window_begin, queries;
};

// Host and device copies of one random problem. Positions are those of a window that has slid:
// sink, gap, window; the last window tokens are the queries'.
class Problem {
 public:
  Problem(const Case& c, ElementType type, uint32_t seed) : case_(c), type_(type), random_(seed) {
    rows_ = c.sink_count + kGapRows + c.window_count;
    const size_t elements = static_cast<size_t>(rows_) * c.kv_heads * c.head_dim;
    keys_.resize(elements * ElementBytes(type));
    values_.resize(elements * ElementBytes(type));
    FromFloat32(Normal(elements, random_), type, keys_.data());
    FromFloat32(Normal(elements, random_), type, values_.data());
    queries_ = Normal(static_cast<size_t>(c.queries) * c.q_heads * c.head_dim, random_);
  }

  void Run() {
    const absl::StatusOr<std::unique_ptr<DeviceStream>> created = DeviceStream::Create();
    ASSERT_TRUE(created.ok()) << created.status();
    DeviceStream& stream = **created;
    const size_t rows = static_cast<size_t>(case_.queries) * case_.q_heads;
    DeviceBuffer keys, values, queries, output, log_sum_exp, workspace;
    LocalAttention attention = Describe();
    ASSERT_TRUE(keys.Reserve(keys_.size()).ok());
    ASSERT_TRUE(values.Reserve(values_.size()).ok());
    ASSERT_TRUE(queries.Reserve(queries_.size() * sizeof(float)).ok());
    ASSERT_TRUE(output.Reserve(queries_.size() * sizeof(float)).ok());
    ASSERT_TRUE(log_sum_exp.Reserve(rows * sizeof(float)).ok());
    ASSERT_TRUE(workspace.Reserve(LocalAttentionWorkspaceFloats(attention) * sizeof(float)).ok());
    ASSERT_TRUE(stream.CopyToDevice(keys.data(), keys_.data(), keys_.size()).ok());
    ASSERT_TRUE(stream.CopyToDevice(values.data(), values_.data(), values_.size()).ok());
    ASSERT_TRUE(
        stream.CopyToDevice(queries.data(), queries_.data(), queries_.size() * sizeof(float)).ok());
    attention.keys = keys.data();
    attention.values = values.data();
    attention.queries = queries.floats();
    attention.output = output.floats();
    attention.log_sum_exp = log_sum_exp.floats();
    attention.workspace = workspace.floats();
    const absl::Status launch = LaunchLocalAttention(attention, stream.handle());
    ASSERT_TRUE(launch.ok()) << launch;
    output_.resize(queries_.size());
    log_sum_exp_.resize(rows);
    ASSERT_TRUE(
        stream.CopyToHost(output_.data(), output.data(), output_.size() * sizeof(float)).ok());
    ASSERT_TRUE(
        stream.CopyToHost(log_sum_exp_.data(), log_sum_exp.data(), rows * sizeof(float)).ok());
  }

  void Check() {
    for (int64_t t = 0; t < case_.queries; ++t) {
      for (uint32_t h = 0; h < case_.q_heads; ++h) CheckRow(t, h);
    }
  }

 private:
  static constexpr int64_t kGapRows = 5;
  static constexpr float kLogitScale = 0.2f;

  LocalAttention Describe() const {
    const Case& c = case_;
    return {.q_heads = c.q_heads,
            .kv_heads = c.kv_heads,
            .head_dim = c.head_dim,
            .logit_scale = kLogitScale,
            .element_type = type_,
            .sink_count = c.sink_count,
            .window_row = c.sink_count + kGapRows,
            .window_begin = c.window_begin,
            .window_count = c.window_count,
            .count = c.queries,
            .first_position = c.window_begin + c.window_count - c.queries};
  }

  void CheckRow(int64_t t, uint32_t head) {
    const Case& c = case_;
    const uint32_t kv_head = head / (c.q_heads / c.kv_heads);
    const int64_t position = c.window_begin + c.window_count - c.queries + t;
    const size_t bytes = c.head_dim * ElementBytes(type_);
    std::vector<std::byte> keys, values;
    const auto add = [&](int64_t row) {
      const size_t at = (static_cast<size_t>(row) * c.kv_heads + kv_head) * bytes;
      keys.insert(keys.end(), keys_.begin() + at, keys_.begin() + at + bytes);
      values.insert(values.end(), values_.begin() + at, values_.begin() + at + bytes);
    };
    for (int64_t p = 0; p < c.sink_count && p <= position; ++p) add(p);
    for (int64_t p = c.window_begin; p <= position; ++p) {
      add(c.sink_count + kGapRows + p - c.window_begin);
    }
    const size_t count = keys.size() / bytes;
    const size_t row = static_cast<size_t>(t) * c.q_heads + head;
    std::vector<double> expected(c.head_dim);
    const double log_sum_exp =
        ReferenceAttention(std::span(queries_).subspan(row * c.head_dim, c.head_dim), kLogitScale,
                           {keys.data(), type_, count, c.head_dim},
                           {values.data(), type_, count, c.head_dim}, expected);
    if (count == 0) {
      EXPECT_EQ(log_sum_exp_[row], kEmptyLogSumExp);
    } else {
      ASSERT_NEAR(log_sum_exp_[row], log_sum_exp, 2e-5) << "token " << t << " head " << head;
    }
    for (size_t j = 0; j < c.head_dim; ++j) {
      ASSERT_NEAR(output_[row * c.head_dim + j], expected[j], 2e-5)
          << "token " << t << " head " << head << " element " << j;
    }
  }

  const Case case_;
  const ElementType type_;
  std::mt19937 random_;
  int64_t rows_ = 0;
  std::vector<std::byte> keys_, values_;
  std::vector<float> queries_, output_, log_sum_exp_;
};

TEST(LocalAttentionKernelTest, MatchesReference) {
  if (const absl::Status device = CheckDevice(); !device.ok()) {
    GTEST_SKIP() << "no CUDA device to run on: " << device;
  }
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Case cases[] = {
      {1, 1, 1, 0, 1, 0, 1},          // one token
      {2, 2, 33, 1, 70, 1, 3},        // rows that are no multiple of 16 bytes
      {8, 2, 64, 4, 300, 50, 1},      // decoding after the window has slid
      {32, 8, 128, 4, 1024, 900, 1},  // Llama-3-8B, split over tokens
      {6, 2, 80, 10, 257, 10, 20},    // several tokens, each up to its own position
      {12, 1, 256, 0, 700, 0, 2},     // a group over one block's heads
      {16, 2, 250, 3, 90, 3, 93},     // queries that reach back into the sink
  };
  for (const Case& c : cases) {
    for (const ElementType type :
         {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
      SCOPED_TRACE(testing::Message() << ElementTypeName(type) << " head_dim " << c.head_dim);
      Problem problem(c, type, seed);
      ASSERT_NO_FATAL_FAILURE(problem.Run());
      ASSERT_NO_FATAL_FAILURE(problem.Check());
    }
  }
}

TEST(LocalAttentionKernelTest, LaunchersAreUnavailableWithoutDevice) {
  if (CheckDevice().ok()) GTEST_SKIP() << "there is a device";
  const LocalAttention attention = {
      .q_heads = 2, .kv_heads = 1, .head_dim = 8, .window_count = 1, .count = 1};
  EXPECT_EQ(LaunchLocalAttention(attention, nullptr).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(LaunchMergePartials(nullptr, nullptr, 1, 8, nullptr, nullptr, nullptr).code(),
            absl::StatusCode::kUnavailable);
  DeviceBuffer buffer;
  EXPECT_EQ(buffer.Reserve(64).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(buffer.bytes(), 0u);
  EXPECT_EQ(DeviceStream::Create().status().code(), absl::StatusCode::kUnavailable);
}

TEST(LocalAttentionKernelTest, RefusesShapesNamingTheField) {
  const LocalAttention good = {
      .q_heads = 4, .kv_heads = 2, .head_dim = 64, .window_count = 10, .count = 1};
  const auto refuses = [](const LocalAttention& attention, const char* field) {
    const absl::Status status = LaunchLocalAttention(attention, nullptr);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(field));
  };
  LocalAttention bad = good;
  bad.kv_heads = 3;
  refuses(bad, "q_heads");
  bad = good;
  bad.head_dim = kDeviceHeadDimMax + 1;
  refuses(bad, "head_dim");
  bad = good;
  bad.window_count = -1;
  refuses(bad, "window_count");
  bad = good;
  bad.count = 1 << 20;
  refuses(bad, "count");
  bad = good;
  bad.count = 0;
  EXPECT_TRUE(LaunchLocalAttention(bad, nullptr).ok());
}

TEST(LocalAttentionKernelTest, SplitsOnlyWhereQueriesAreFewAndTokensMany) {
  LocalAttention attention = {.q_heads = 32, .kv_heads = 8, .head_dim = 128, .count = 1};
  attention.window_count = 100;
  EXPECT_EQ(LocalAttentionSplits(attention), 1);
  EXPECT_EQ(LocalAttentionWorkspaceFloats(attention), 0u);
  attention.window_count = 100000;
  const int64_t splits = LocalAttentionSplits(attention);
  EXPECT_EQ(splits, 33);  // 264 blocks wanted, 8 there without splitting
  EXPECT_EQ(LocalAttentionWorkspaceFloats(attention), 32u * splits * 129);
  attention.count = 2048;
  EXPECT_EQ(LocalAttentionSplits(attention), 1);
}

TEST(CudaStatusTest, MapsErrors) {
  EXPECT_TRUE(CudaStatus(0, "x").ok());
  EXPECT_EQ(CudaStatus(2, "x").code(), absl::StatusCode::kResourceExhausted);  // out of memory
  EXPECT_EQ(CudaStatus(100, "x").code(), absl::StatusCode::kUnavailable);      // no device
  EXPECT_EQ(CudaStatus(35, "x").code(), absl::StatusCode::kUnavailable);       // driver too old
  EXPECT_EQ(CudaStatus(1, "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CudaStatus(209, "x").code(), absl::StatusCode::kFailedPrecondition);  // no kernel image
  EXPECT_EQ(CudaStatus(700, "x").code(), absl::StatusCode::kInternal);            // illegal address
  EXPECT_THAT(std::string(CudaStatus(2, "allocating the cache").message()),
              testing::StartsWith("allocating the cache: "));
  EXPECT_TRUE(CublasStatus(0, "x").ok());
  EXPECT_EQ(CublasStatus(3, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CublasStatus(1, "x").code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attic::worker
