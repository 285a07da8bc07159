#include "gpu_worker/model/forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gpu_worker/model/prefix_rebuild.h"
#include "tests/unit/gpu_worker/memory_client.h"
#include "tests/unit/gpu_worker/tiny_model.h"

namespace attic::worker {
namespace {

// A sequence with everything it needs; each pass's logits are appended to `logits`.
class Reader {
 public:
  Reader(const Model& model, Backend& backend, ThreadPool& pool, Client* client,
         const ForwardOptions& options, size_t chunk_max)
      : forward_(model, backend, pool, options) {
    const ModelConfig& config = model.config;
    OpenSessionRequest request;
    request.fingerprint = {.q_heads = config.q_heads,
                           .kv_heads = config.kv_heads,
                           .head_dim = config.head_dim,
                           .value_dim = config.head_dim,
                           .element_type = options.element_type,
                           .logit_scale = config.attention_shape().logit_scale};
    for (uint32_t i = 0; i < config.layers.size(); ++i) {
      if (config.layers[i].full_attention) {
        request.stored_layers.push_back(i);
      } else {
        state_.sliding.emplace_back(config.attention_shape(), config.sliding_window);
      }
    }
    state_.local = *backend.OpenCache({.shape = config.attention_shape(),
                                       .layers = config.full_attention_layers(),
                                       .sink_tokens = options.sink_tokens,
                                       .window_tokens = options.window_tokens,
                                       .step_tokens_max = static_cast<int64_t>(chunk_max),
                                       .element_type = options.element_type});
    if (client != nullptr) state_.store = *StoreSession::Open(*client, request, {});
  }

  // Starts with `tokens`, which `other`, and so the store, has read.
  Reader(const Model& model, Backend& backend, ThreadPool& pool, Reader& other,
         std::span<const uint32_t> tokens, const ForwardOptions& options, size_t chunk)
      : Reader(model, backend, pool, nullptr, options, chunk) {
    state_.store = *other.state_.store->Fork("");
    const absl::Status status = RebuildPrefix(model.config, options, chunk, tokens,
                                              {.mode = AttendMode::kExact}, forward_, state_);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(state_.position, static_cast<int64_t>(tokens.size()));
    EXPECT_EQ(state_.store->appended_bytes(), 0u);
  }

  // Reads all tokens, `chunk` at a time.
  std::vector<float> Logits(std::span<const uint32_t> tokens, size_t chunk) {
    std::vector<float> logits;
    ForwardResult result;
    for (size_t i = 0; i < tokens.size(); i += chunk) {
      const auto some = tokens.subspan(i, std::min(chunk, tokens.size() - i));
      const absl::Status status = forward_.Run(
          {.tokens = some, .logits = true, .mode = AttendMode::kExact}, state_, result);
      EXPECT_TRUE(status.ok()) << status;
      if (!status.ok()) break;
      logits.insert(logits.end(), result.logits.begin(), result.logits.end());
    }
    return logits;
  }

 private:
  Forward forward_;
  SequenceState state_;
};

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  }
  return largest;
}

class ForwardTest : public testing::Test {
 protected:
  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend(pool_);
};

// The oracle is model/reference_decoder.py in float64.
TEST_F(ForwardTest, MatchesTheReferenceDecoder) {
  const auto model = LoadModel(kTinyFolder, *backend_);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::string folder = kTinyFolder;
  const std::vector<int32_t> signed_tokens = ReadNpyInt32(folder + "/tokens.npy");
  const std::vector<uint32_t> tokens(signed_tokens.begin(), signed_tokens.end());
  const std::vector<float> golden = ReadNpyFloat32(folder + "/logits.npy");
  const ForwardOptions options{.element_type = ElementType::kFloat32};
  for (size_t chunk : {tokens.size(), size_t{1}, size_t{7}, size_t{40}}) {
    Reader run(**model, *backend_, pool_, nullptr, options, 128);
    EXPECT_LT(LargestDifference(run.Logits(tokens, chunk), golden), 1e-3) << "chunk " << chunk;
  }
}

// With the store answering exactly for everything between sink and window, the logits are those of
// dense attention, in prefill and decode, with full layers before, between and after sliding ones.
TEST_F(ForwardTest, StoreAndWindowMakeDenseAttention) {
  const std::vector<std::vector<LayerConfig>> shapes = {
      {{.full_attention = false}, {.full_attention = true, .rotary = false, .dense = false}},
      {{.full_attention = false}, {.full_attention = true}, {.full_attention = false}},
      {{.full_attention = true}, {.full_attention = false}, {.full_attention = true}},
  };
  for (size_t i = 0; i < shapes.size(); ++i) {
    const uint64_t seed = 11 + i;
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const auto model = MakeRandomModel({.layers = shapes[i]}, seed, *backend_);
    const auto tokens = RandomTokens(200, model->config.vocab_size, seed);
    for (ElementType type : {ElementType::kFloat32, ElementType::kBFloat16}) {
      Reader dense(*model, *backend_, pool_, nullptr, {.window_tokens = 4096, .element_type = type},
                   256);
      const std::vector<float> expected = dense.Logits(tokens, tokens.size());
      for (size_t chunk : {1, 9, 50}) {
        MemoryClient client;
        Reader run(*model, *backend_, pool_, &client,
                   {.sink_tokens = 3, .window_tokens = 16, .element_type = type}, 64);
        // Rounding to bfloat16 turns differences of one float32 step into ones of a bfloat16 step.
        const double tolerance = type == ElementType::kFloat32 ? 1e-3 : 0.1;
        EXPECT_LT(LargestDifference(run.Logits(tokens, chunk), expected), tolerance)
            << "chunk " << chunk << " " << ElementTypeName(type);
        EXPECT_GT(client.items_answered, 100u);
      }
    }
  }
}

// A sequence that starts with tokens the store holds goes on as one that read them: sliding layers
// and windows are as right as the layers before them are.
TEST_F(ForwardTest, ARebuiltPrefixIsAsGoodAsOneThatWasRead) {
  const std::vector<std::vector<LayerConfig>> shapes = {
      {{.full_attention = false}, {.full_attention = true, .rotary = false, .dense = false}},
      {{.full_attention = true}, {.full_attention = false}, {.full_attention = true}},
      {{.full_attention = false},
       {.full_attention = true},
       {.full_attention = false},
       {.full_attention = false},
       {.full_attention = true}},
      {{.full_attention = true}, {.full_attention = true}},
  };
  for (size_t i = 0; i < shapes.size(); ++i) {
    const uint64_t seed = 41 + i;
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const auto model = MakeRandomModel({.layers = shapes[i]}, seed, *backend_);
    const auto tokens = RandomTokens(300, model->config.vocab_size, seed);
    const std::span<const uint32_t> all(tokens);
    for (const int64_t sink : {0, 3}) {
      // Of 299 tokens, and of so few that all are read again.
      for (const size_t prefix : {250, 20, 2}) {
        SCOPED_TRACE(testing::Message() << "sink " << sink << " prefix " << prefix);
        const ForwardOptions options{
            .sink_tokens = sink, .window_tokens = 16, .element_type = ElementType::kFloat32};
        MemoryClient client;
        Reader read(*model, *backend_, pool_, &client, options, 64);
        read.Logits(all.first(prefix), 50);
        Reader rebuilt(*model, *backend_, pool_, read, all.first(prefix), options, 64);
        const size_t asked = client.items_answered;
        const auto rest = all.subspan(prefix);
        const std::vector<float> expected = read.Logits(rest, 40);
        EXPECT_LT(LargestDifference(rebuilt.Logits(rest, 40), expected), 1e-3);
        EXPECT_GT(client.items_answered, asked);
      }
    }
  }
}

TEST(TokensToRebuildTest, IsWhatReachesTheWindowsThroughSlidingLayers) {
  ModelConfig config;
  config.sliding_window = 24;
  const LayerConfig sliding{.full_attention = false}, full{.full_attention = true};
  config.layers = {full, full};
  EXPECT_EQ(TokensToRebuild(config, 1024), 1024);
  config.layers = {sliding, sliding, sliding, sliding, full};
  EXPECT_EQ(TokensToRebuild(config, 1024), 1024 + 4 * 23);
  config.layers = {full, sliding, sliding};
  EXPECT_EQ(TokensToRebuild(config, 1024), 1024);
  EXPECT_EQ(TokensToRebuild(config, 10), 2 * 23);
  config.layers = {sliding, full, sliding, sliding};
  EXPECT_EQ(TokensToRebuild(config, 10), 3 * 23);
}

}  // namespace
}  // namespace attic::worker
