#include "gpu_worker/model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/gpu_worker/memory_client.h"
#include "tests/unit/gpu_worker/tiny_model.h"

namespace attic::worker {
namespace {

constexpr uint64_t kSeed = 21;

absl::Status Go() { return absl::OkStatus(); }

class DecoderTest : public testing::Test {
 protected:
  DecoderTest() {
    model_ =
        MakeRandomModel({.layers = {{.full_attention = false},
                                    {.full_attention = true, .rotary = false, .dense = false}}},
                        kSeed, *backend_);
    decoder_ = Create({.sink_tokens = 2, .window_tokens = 16});
  }

  std::unique_ptr<Decoder> Create(const ForwardOptions& forward) {
    auto decoder = Decoder::Create(*model_, *backend_, pool_, client_,
                                   {.forward = forward, .chunk_tokens = 32});
    EXPECT_TRUE(decoder.ok()) << decoder.status();
    return *std::move(decoder);
  }
  std::vector<DecodedToken> Decode(Sequence& sequence, std::span<const uint32_t> prompt,
                                   DecodeOptions options) {
    std::vector<DecodedToken> tokens;
    const absl::Status status = sequence.Decode(prompt, options, [&](const DecodedToken& token) {
      tokens.push_back(token);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return tokens;
  }
  static std::vector<uint32_t> Ids(const std::vector<DecodedToken>& tokens) {
    std::vector<uint32_t> ids;
    for (const DecodedToken& token : tokens) ids.push_back(token.token_id);
    return ids;
  }

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend(pool_);
  MemoryClient client_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Decoder> decoder_;
  const std::vector<uint32_t> tokens_ = RandomTokens(200, 64, kSeed);
};

// Greedy decoding with a small window and an exact store gives the tokens of dense attention, for
// any split of the same tokens over prefills and prompt.
TEST_F(DecoderTest, DecodesAsDenseAttention) {
  const auto dense_decoder = Create({.window_tokens = 1000});
  const auto dense = *dense_decoder->Open("dense");
  const auto expected =
      Ids(Decode(*dense, tokens_, {.max_tokens = 60, .mode = AttendMode::kExact}));
  for (size_t prefilled : {0, 1, 32, 64, 150, 200}) {
    const auto sequence = *decoder_->Open("s");
    const std::span<const uint32_t> all(tokens_);
    ASSERT_TRUE(sequence->Prefill(all.first(prefilled / 2), Go).ok());
    ASSERT_TRUE(sequence->Prefill(all.subspan(prefilled / 2, prefilled - prefilled / 2), Go).ok());
    const auto decoded =
        Decode(*sequence, all.subspan(prefilled), {.max_tokens = 60, .mode = AttendMode::kExact});
    EXPECT_EQ(Ids(decoded), expected) << "prefilled " << prefilled;
    EXPECT_EQ(decoded[0].position, 200);
    EXPECT_EQ(sequence->tokens(), 260);
    ASSERT_TRUE(sequence->Close().ok());
  }
}

TEST_F(DecoderTest, PrefillIsAcknowledgedAndSampled) {
  const auto sequence = *decoder_->Open("s");
  size_t calls = 0;
  ASSERT_TRUE(sequence
                  ->Prefill(tokens_,
                            [&] {
                              ++calls;
                              return absl::OkStatus();
                            })
                  .ok());
  EXPECT_EQ(calls, 7u);
  EXPECT_EQ(sequence->tokens(), 200);
  EXPECT_EQ(sequence->acknowledged(), 199);
  const MemoryClient::Layer& layer = client_.sessions.at("s").layers.at(1);
  EXPECT_EQ(layer.tokens, 199);
  EXPECT_EQ(layer.sample_floats, 4u * 64);  // positions 0, 64, 128, 192 of 4 heads of 16
  EXPECT_EQ(client_.items_answered, 0u);    // nobody needs the last layer's output
}

TEST_F(DecoderTest, ComparesWithExactAttention) {
  client_.indexed_scale = 0.5f;
  const auto sequence = *decoder_->Open("s");
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  const auto fork = *sequence->Fork("t");
  const auto compared = Decode(*sequence, {}, {.max_tokens = 1, .compare_exact = true})[0];
  const auto exact = Decode(*fork, {}, {.max_tokens = 1, .mode = AttendMode::kExact})[0];
  EXPECT_EQ(compared.exact_token_id, exact.token_id);
  EXPECT_GT(compared.output_error, 0.05);
  EXPECT_LT(compared.output_error, 0.6);
  // The store says it attended half of its mass exactly; sink and window are exact.
  EXPECT_GT(compared.coverage, 0.5);
  EXPECT_LT(compared.coverage, 0.99);
  EXPECT_EQ(exact.coverage, 1.0);
  EXPECT_EQ(exact.output_error, 0.0);
  EXPECT_EQ(compared.estimated_error, 0.25);  // of the head that has most
  EXPECT_EQ(exact.estimated_error, 0.0);
  // Positions [2, 183) of two kv heads, keys and values of 16 bfloat16.
  EXPECT_EQ(compared.bytes_read, 181u * 2 * 2 * 32);
  EXPECT_EQ(compared.exact_bytes_read, compared.bytes_read);
  EXPECT_GT(compared.exact_attend_ms, 0.0);
}

TEST_F(DecoderTest, ForksAreIndependent) {
  const auto sequence = *decoder_->Open("s");
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  const auto fork = *sequence->Fork("t");
  const auto other = *sequence->Fork("");
  EXPECT_EQ(fork->tokens(), 200);
  EXPECT_NE(other->id(), "");
  const DecodeOptions options{.max_tokens = 40, .mode = AttendMode::kExact};
  const auto expected = Ids(Decode(*sequence, tokens_, options));
  ASSERT_TRUE(fork->Prefill(RandomTokens(70, 64, kSeed + 1), Go).ok());
  EXPECT_NE(Ids(Decode(*fork, {}, options)), expected);
  EXPECT_EQ(Ids(Decode(*other, tokens_, options)), expected);
}

TEST_F(DecoderTest, RefusesBadInput) {
  const auto sequence = *decoder_->Open("s");
  const std::vector<uint32_t> bad = {1, 2, 64};
  const absl::Status status = sequence->Prefill(bad, Go);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("token_ids[2]: token 64"));
  const auto ignore = [](const DecodedToken&) { return absl::OkStatus(); };
  EXPECT_THAT(std::string(sequence->Decode({}, {}, ignore).message()),
              testing::HasSubstr("prompt_token_ids"));
  EXPECT_THAT(std::string(sequence->Decode(tokens_, {.max_tokens = 0}, ignore).message()),
              testing::HasSubstr("max_tokens"));
  EXPECT_EQ(sequence->tokens(), 0);
  EXPECT_TRUE(sequence->Prefill(tokens_, Go).ok());
  EXPECT_THAT(std::string(decoder_->Open("s").status().message()),
              testing::HasSubstr("already holds"));
}

TEST_F(DecoderTest, TheStoreIsAskedWithTheSelection) {
  const auto sequence = *decoder_->Open("s");
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  const SelectionPolicy selection{SelectionGoal::kMaxError, 0.05};
  Decode(*sequence, {}, {.max_tokens = 1, .selection = selection});
  EXPECT_EQ(client_.last_selection, selection);
  // A bad one is refused before anything is read, so the sequence goes on.
  const auto ignore = [](const DecodedToken&) { return absl::OkStatus(); };
  const absl::Status status =
      sequence->Decode(tokens_, {.selection = {SelectionGoal::kCoverage, 2}}, ignore);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("selection.coverage"));
  EXPECT_EQ(sequence->tokens(), 201);
  Decode(*sequence, {}, {.max_tokens = 1});
  EXPECT_EQ(client_.last_selection, SelectionPolicy());
}

TEST_F(DecoderTest, StopsBetweenChunksWhenAsked) {
  const auto sequence = *decoder_->Open("s");
  int chunks = 0;
  const absl::Status status = sequence->Prefill(
      tokens_, [&] { return ++chunks == 2 ? absl::CancelledError("enough") : absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sequence->tokens(), 64);
  EXPECT_TRUE(sequence->Prefill(tokens_, Go).ok());
  EXPECT_EQ(sequence->tokens(), 264);
}

TEST_F(DecoderTest, AStoreThatFailsBreaksTheSequence) {
  const auto sequence = *decoder_->Open("s");
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  client_.refusals = 2;
  const auto ignore = [](const DecodedToken&) { return absl::OkStatus(); };
  EXPECT_EQ(sequence->Decode({}, {}, ignore).code(), absl::StatusCode::kUnavailable);
  const absl::Status later = sequence->Decode({}, {}, ignore);
  EXPECT_EQ(later.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(later.message()), testing::HasSubstr("refused by the test"));
  EXPECT_EQ(sequence->Fork("t").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(sequence->Close().ok());
}

TEST_F(DecoderTest, AsksAgainAfterALostAnswer) {
  const auto sequence = *decoder_->Open("s");
  ASSERT_TRUE(sequence->Prefill(tokens_, Go).ok());
  const auto fork = *sequence->Fork("t");
  const DecodeOptions options{.max_tokens = 5, .mode = AttendMode::kExact};
  const auto expected = Ids(Decode(*fork, {}, options));
  client_.refusals = 1;
  EXPECT_EQ(Ids(Decode(*sequence, {}, options)), expected);
}

TEST_F(DecoderTest, RefusesBadOptions) {
  const auto create = [&](const DecoderOptions& options) {
    return Decoder::Create(*model_, *backend_, pool_, client_, options).status();
  };
  EXPECT_THAT(std::string(create({.forward = {.sink_tokens = -1}}).message()),
              testing::HasSubstr("sink"));
  EXPECT_THAT(std::string(create({.forward = {.window_tokens = 0}}).message()),
              testing::HasSubstr("window"));
  EXPECT_THAT(std::string(create({.chunk_tokens = 0}).message()),
              testing::HasSubstr("chunk_tokens"));
  const auto sliding = MakeRandomModel({.layers = {{.full_attention = false}}}, 1, *backend_);
  EXPECT_THAT(
      std::string(Decoder::Create(*sliding, *backend_, pool_, client_, {}).status().message()),
      testing::HasSubstr("full_attention"));
}

}  // namespace
}  // namespace attic::worker
