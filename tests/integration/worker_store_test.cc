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

  std::unique_ptr<Decoder> Create(int64_t window, bool reuse_prefixes = false) {
    DecoderOptions options{.forward = {.window_tokens = window},
                           .chunk_tokens = 200,
                           .prefill_mode = AttendMode::kExact,
                           .reuse_prefixes = reuse_prefixes};
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

std::vector<uint32_t> Ids(const std::vector<DecodedToken>& tokens) {
  std::vector<uint32_t> ids;
  for (const DecodedToken& token : tokens) ids.push_back(token.token_id);
  return ids;
}

// A sequence whose first nine tenths the store holds already, in whole blocks of 256, costs a tenth
// to append, and generates what one does that was read as a whole.
TEST_F(WorkerStoreTest, AKnownPrefixIsNotAppendedAgain) {
  const auto reading = Create(100);
  const auto decoder = Create(100, /*reuse_prefixes=*/true);
  const auto first = *decoder->Open("first");
  ASSERT_TRUE(first->Prefill(tokens_, Go).ok());
  EXPECT_EQ(first->reused_tokens(), 0);

  std::vector<uint32_t> other(tokens_.begin(), tokens_.begin() + 2304);
  const std::vector<uint32_t> end = RandomTokens(256, 64, kSeed + 1);
  other.insert(other.end(), end.begin(), end.end());
  const auto whole = *reading->Open("whole");
  ASSERT_TRUE(whole->Prefill(other, Go).ok());
  EXPECT_EQ(whole->reused_tokens(), 0);
  const auto second = *decoder->Open("second");
  ASSERT_TRUE(second->Prefill(other, Go).ok());
  EXPECT_EQ(second->reused_tokens(), 2304);
  EXPECT_EQ(second->tokens(), 2560);
  EXPECT_EQ(second->acknowledged(), 2559);
  const double share = double(second->appended_bytes()) / double(whole->appended_bytes());
  std::printf("appended: %llu bytes, %.4f of those of the whole\n",
              static_cast<unsigned long long>(second->appended_bytes()), share);
  EXPECT_NEAR(share, 0.1, 0.005);
  EXPECT_EQ(client_->DescribeSession("second")->reused_tokens, 2304);

  const DecodeOptions options{.max_tokens = 4, .mode = AttendMode::kExact};
  EXPECT_EQ(Ids(Decode(*second, options)), Ids(Decode(*whole, options)));
}

// What a sequence generated, and what its forks read, are prefixes for others too.
TEST_F(WorkerStoreTest, GeneratedTokensAndForksArePrefixes) {
  const auto decoder = Create(100, /*reuse_prefixes=*/true);
  const auto first = *decoder->Open("first");
  const std::span<const uint32_t> all(tokens_);
  ASSERT_TRUE(first->Prefill(all.first(500), Go).ok());
  ASSERT_TRUE(first->Prefill(all.subspan(500, 200), Go).ok());
  std::vector<uint32_t> text(all.begin(), all.begin() + 700);
  for (const uint32_t id : Ids(Decode(*first, {.max_tokens = 400, .mode = AttendMode::kExact}))) {
    text.push_back(id);
  }
  const auto fork = *first->Fork("fork");
  const std::vector<uint32_t> more = RandomTokens(600, 64, kSeed + 2);
  ASSERT_TRUE(fork->Prefill(more, Go).ok());
  text.push_back(1);
  const auto second = *decoder->Open("second");
  ASSERT_TRUE(second->Prefill(text, Go).ok());
  EXPECT_EQ(second->reused_tokens(), 1024);  // of 1,099 that were read
  text.pop_back();
  text.insert(text.end(), more.begin(), more.end());
  const auto third = *decoder->Open("third");
  ASSERT_TRUE(third->Prefill(text, Go).ok());
  EXPECT_EQ(third->reused_tokens(), 1536);  // of 1,699
}

// A prefill that is ended early has told the store of blocks that it did not append; what comes
// then is something else.
TEST_F(WorkerStoreTest, APrefillEndedEarlyLeavesNoFalsePrefix) {
  const auto decoder = Create(100, /*reuse_prefixes=*/true);
  const auto first = *decoder->Open("first");
  int chunks = 0;
  const auto stop = [&] { return ++chunks == 4 ? absl::CancelledError("") : absl::OkStatus(); };
  EXPECT_EQ(first->Prefill(tokens_, stop).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(first->tokens(), 800);
  const std::vector<uint32_t> other = RandomTokens(2000, 64, kSeed + 3);
  ASSERT_TRUE(first->Prefill(other, Go).ok());
  const auto second = *decoder->Open("second");
  ASSERT_TRUE(second->Prefill(tokens_, Go).ok());
  EXPECT_EQ(second->reused_tokens(), 768);
  std::vector<uint32_t> text(tokens_.begin(), tokens_.begin() + 800);
  text.insert(text.end(), other.begin(), other.end());
  const auto third = *decoder->Open("third");
  ASSERT_TRUE(third->Prefill(text, Go).ok());
  EXPECT_EQ(third->reused_tokens(), 2560);
}

}  // namespace
}  // namespace attic::worker
