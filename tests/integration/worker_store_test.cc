// The decoder over a real store in this process: appends, background index, forks and answers.
#include <gtest/gtest.h>

#include <algorithm>

#include "client/cpp/local_client.h"
#include "gpu_worker/model/decoder.h"
#include "tests/unit/gpu_worker/tiny_model.h"

namespace attic::worker {
namespace {

constexpr uint64_t kSeed = 77;

class WorkerStoreTest : public testing::Test {
 protected:
  WorkerStoreTest() {
    model_ = MakeRandomModel({.layers = {{.full_attention = false},
                                         {.full_attention = true},
                                         {.full_attention = false},
                                         {.full_attention = true, .rotary = false}},
                              .vocab_size = 64},
                             kSeed, *backend_);
    SessionStoreOptions options;
    options.index.segment_tokens = 512;
    options.index.exact_scan_tokens_max = 256;
    options.index.centroid_graph = true;
    options.index.graph_clusters_min = 64;
    options.threads = 2;
    options.build_threads = 1;
    client_ = MakeLocalClient(options);
  }

  std::unique_ptr<Decoder> Create(int64_t window) {
    DecoderOptions options{.forward = {.window_tokens = window},
                           .chunk_tokens = 200,
                           .prefill_mode = AttendMode::kExact};
    options.store.batch_tokens = 300;
    return *Decoder::Create(*model_, *backend_, pool_, *client_, options);
  }
  std::vector<DecodedToken> Decode(Sequence& sequence, const DecodeOptions& options) {
    std::vector<DecodedToken> tokens;
    const absl::Status status = sequence.Decode({}, options, [&](const DecodedToken& token) {
      tokens.push_back(token);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return tokens;
  }

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend(pool_);
  std::unique_ptr<Model> model_;
  std::unique_ptr<Client> client_;
  const std::vector<uint32_t> tokens_ = RandomTokens(3000, 64, kSeed);
};

absl::Status Go() { return absl::OkStatus(); }

// The window of the first decoder holds everything, so it never asks the store. Small rounding
// differences may turn a close decision, after which the texts differ: the first tokens must agree.
TEST_F(WorkerStoreTest, ExactStoreGivesDenseAttention) {
  const auto dense_decoder = Create(4096);
  const auto dense = *dense_decoder->Open("dense");
  const auto decoder = Create(100);
  const auto sequence = *decoder->Open("s");
  ASSERT_TRUE(dense->Prefill(tokens_, Go).ok());
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  EXPECT_EQ(sequence->acknowledged(), 2999);
  const auto expected = Decode(*dense, {.max_tokens = 4, .mode = AttendMode::kExact});
  const auto decoded = Decode(*sequence, {.max_tokens = 4, .mode = AttendMode::kExact});
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(decoded[i].token_id, expected[i].token_id) << i;
    EXPECT_NEAR(decoded[i].coverage, 1.0, 1e-4);
    EXPECT_GT(decoded[i].bytes_read, 0u);
    EXPECT_EQ(expected[i].bytes_read, 0u);
  }
}

// Indexed answers are close, cheaper, and say how much they left to estimates; generating past the
// window makes the store serve what the worker itself appended while decoding.
TEST_F(WorkerStoreTest, IndexedAnswersAreComparedWithExactOnes) {
  const auto decoder = Create(64);
  const auto sequence = *decoder->Open("s");
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  const auto fork = *sequence->Fork("t");
  const auto decoded = Decode(*sequence, {.max_tokens = 150, .compare_exact = true});
  ASSERT_EQ(decoded.size(), 150u);
  std::vector<double> errors;
  for (const DecodedToken& token : decoded) {
    errors.push_back(token.output_error);
    EXPECT_GT(token.coverage, 0.0);
    EXPECT_LE(token.coverage, 1.0);
    EXPECT_GE(token.estimated_error, 0.0);
    EXPECT_FALSE(token.degraded);
  }
  std::nth_element(errors.begin(), errors.begin() + 75, errors.end());
  EXPECT_LT(errors[75], 0.5);
  EXPECT_EQ(client_->DescribeSession("t")->watermark, 2999);
  EXPECT_GE(client_->DescribeSession("s")->watermark, 2999 + 150 - 64);
  const auto again = Decode(
      *fork,
      {.max_tokens = 1, .selection = {SelectionGoal::kCoverage, 0.9}, .compare_exact = true});
  EXPECT_EQ(again[0].exact_token_id, decoded[0].exact_token_id);
  ASSERT_TRUE(sequence->Close().ok());
  EXPECT_FALSE(client_->DescribeSession("s").ok());
  EXPECT_TRUE(client_->DescribeSession("t").ok());
}

}  // namespace
}  // namespace attic::worker
