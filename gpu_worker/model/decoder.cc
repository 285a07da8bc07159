#include "gpu_worker/model/decoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "gpu_worker/model/prefix_rebuild.h"

namespace attic::worker {
namespace {

constexpr size_t kChunkTokensMax = 16384;
constexpr int64_t kLocalTokensMax = int64_t{1} << 20;

absl::Status CheckRange(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": must be from ", min, " to ", max, ", is ", value));
}

uint32_t LargestIndex(const std::vector<float>& x) {
  return static_cast<uint32_t>(std::max_element(x.begin(), x.end()) - x.begin());
}

}  // namespace

Decoder::Decoder(const Model& model, Backend& backend, ThreadPool& pool, Client& client,
                 const DecoderOptions& options)
    : model_(model), backend_(backend), pool_(pool), client_(client), options_(options) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const Model& model, Backend& backend,
                                                         ThreadPool& pool, Client& client,
                                                         const DecoderOptions& options) {
  if (model.config.full_attention_layers() == 0) {
    return absl::InvalidArgumentError("layer_types: the model has no full_attention layer");
  }
  const ForwardOptions& forward = options.forward;
  ATTIC_RETURN_IF_ERROR(CheckRange("sink", forward.sink_tokens, 0, kLocalTokensMax));
  ATTIC_RETURN_IF_ERROR(CheckRange("window", forward.window_tokens, 1, kLocalTokensMax));
  ATTIC_RETURN_IF_ERROR(CheckRange("sample_stride", forward.sample_stride, 1, kLocalTokensMax));
  ATTIC_RETURN_IF_ERROR(CheckRange("chunk_tokens", options.chunk_tokens, 1, kChunkTokensMax));
  return std::unique_ptr<Decoder>(new Decoder(model, backend, pool, client, options));
}

Fingerprint Decoder::fingerprint() const {
  const ModelConfig& config = model_.config;
  bool rotary = false;
  for (const LayerConfig& layer : config.layers) rotary |= layer.full_attention && layer.rotary;
  return {.model_id = config.model_id,
          .revision = model_.revision,
          .layers = static_cast<uint32_t>(config.layers.size()),
          .q_heads = config.q_heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .value_dim = config.head_dim,
          .element_type = options_.forward.element_type,
          .logit_scale = config.attention_shape().logit_scale,
          .position_encoding =
              rotary ? absl::StrCat("rope theta=", config.rope_theta) : std::string("none")};
}

absl::StatusOr<std::unique_ptr<Sequence>> Decoder::Open(const std::string& session_id) const {
  const ModelConfig& config = model_.config;
  SequenceState state;
  OpenSessionRequest request{.session_id = session_id,
                             .fingerprint = fingerprint(),
                             .durability = options_.durability,
                             .tenant = options_.tenant,
                             .ttl_seconds = options_.ttl_seconds};
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (config.layers[i].full_attention) {
      request.stored_layers.push_back(static_cast<uint32_t>(i));
    } else {
      state.sliding.emplace_back(config.attention_shape(), config.sliding_window);
    }
  }
  ATTIC_ASSIGN_OR_RETURN(
      state.local,
      backend_.OpenCache({.shape = config.attention_shape(),
                          .layers = config.full_attention_layers(),
                          .sink_tokens = options_.forward.sink_tokens,
                          .window_tokens = options_.forward.window_tokens,
                          .step_tokens_max = static_cast<int64_t>(options_.chunk_tokens),
                          .element_type = options_.forward.element_type}));
  ATTIC_ASSIGN_OR_RETURN(state.store, StoreSession::Open(client_, request, options_.store));
  return std::unique_ptr<Sequence>(new Sequence(*this, std::move(state)));
}

Sequence::Sequence(const Decoder& decoder, SequenceState state)
    : decoder_(decoder),
      forward_(decoder.model_, decoder.backend_, decoder.pool_, decoder.options_.forward),
      state_(std::move(state)) {}

absl::Status Sequence::CheckUsable() const {
  if (broken_.ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("session_id: sequence ", id(), " failed earlier: ", broken_.message()));
}

absl::Status Sequence::CheckTokens(std::span<const uint32_t> tokens, const char* field) const {
  const uint32_t vocab_size = decoder_.model_.config.vocab_size;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, "[", i, "]: token ", tokens[i], " is not below vocab_size (", vocab_size, ")"));
    }
  }
  const int64_t tokens_max = decoder_.options_.store.limits.session_tokens_max;
  if (this->tokens() > tokens_max - static_cast<int64_t>(tokens.size())) {
    return absl::ResourceExhaustedError(
        absl::StrCat(field, ": the sequence would exceed session_tokens_max (", tokens_max, ")"));
  }
  return absl::OkStatus();
}

absl::Status Sequence::Pass(const ForwardRequest& request, ForwardResult& result) {
  broken_ = forward_.Run(request, state_, result);
  if (broken_.ok() && decoder_.options_.reuse_prefixes) {
    hasher_.Add(request.tokens, unregistered_);
  }
  return broken_;
}

absl::Status Sequence::StartWithPrefix(std::span<const uint32_t> tokens,
                                       const ForwardRequest& how) {
  // The last token is read with what follows it, and hashes beyond the limit would be refused.
  const size_t blocks_max = decoder_.options_.store.limits.prefix_hashes_max;
  const auto hashed = tokens.first(std::min(tokens.size() - 1, blocks_max * kPrefixBlockTokens));
  std::vector<PrefixHash> hashes = PrefixHashes(hashed);
  const size_t blocks = hashes.size();
  ATTIC_RETURN_IF_ERROR(state_.store->Reopen(std::move(hashes)));
  registered_blocks_ = blocks;
  const auto reused = tokens.first(static_cast<size_t>(state_.store->reused_tokens()));
  ATTIC_RETURN_IF_ERROR(RebuildPrefix(decoder_.model_.config, decoder_.options_.forward,
                                      decoder_.options_.chunk_tokens, reused, how, forward_,
                                      state_));
  hasher_.Add(reused, unregistered_);
  return absl::OkStatus();
}

void Sequence::RegisterBlocks() {
  // What was registered when the sequence began need not be told again.
  const size_t first = hasher_.blocks() - unregistered_.size();
  const size_t known = registered_blocks_ > first ? registered_blocks_ - first : 0;
  const size_t told = std::min(unregistered_.size(), known);
  const size_t blocks_max = decoder_.options_.store.limits.prefix_hashes_max;
  const std::span<const PrefixHash> added = std::span(unregistered_).subspan(told);
  if (!added.empty() && hasher_.blocks() <= blocks_max) {
    // Others read these blocks themselves when the store was not told: no reason to fail.
    if (state_.store->ExtendPrefix(first + told, added).ok()) registered_blocks_ = hasher_.blocks();
  }
  unregistered_.clear();
}

absl::Status Sequence::Read(std::span<const uint32_t> tokens, const ForwardRequest& how,
                            const std::function<absl::Status()>& progress) {
  if (tokens.empty()) return absl::OkStatus();
  ForwardRequest request = how;
  std::vector<uint32_t> chunk;
  ForwardResult result;
  size_t next = 0;
  while (next < tokens.size()) {
    const size_t taken = std::min(decoder_.options_.chunk_tokens, tokens.size() - next);
    chunk.clear();
    if (pending_.has_value()) chunk.push_back(*pending_);
    chunk.insert(chunk.end(), tokens.begin() + next, tokens.begin() + next + taken - 1);
    if (!chunk.empty()) {
      request.tokens = chunk;
      ATTIC_RETURN_IF_ERROR(Pass(request, result));
    }
    pending_ = tokens[next + taken - 1];
    next += taken;
    ATTIC_RETURN_IF_ERROR(progress());
  }
  return absl::OkStatus();
}

absl::Status Sequence::Prefill(std::span<const uint32_t> tokens,
                               const std::function<absl::Status()>& progress) {
  ATTIC_RETURN_IF_ERROR(CheckUsable());
  ATTIC_RETURN_IF_ERROR(CheckTokens(tokens, "token_ids"));
  const DecoderOptions& options = decoder_.options_;
  const ForwardRequest how{.mode = options.prefill_mode, .budget = options.attend_budget};
  if (options.reuse_prefixes && this->tokens() == 0 && tokens.size() > kPrefixBlockTokens) {
    broken_ = StartWithPrefix(tokens, how);
    ATTIC_RETURN_IF_ERROR(broken_);
    tokens = tokens.subspan(static_cast<size_t>(reused_tokens()));
  }
  if (const absl::Status read = Read(tokens, how, progress); !read.ok()) {
    // Other tokens may follow than those whose hashes the store was told.
    if (broken_.ok() && registered_blocks_ > hasher_.blocks()) {
      broken_ = state_.store->WithdrawHashes();
      registered_blocks_ = hasher_.blocks();
    }
    return read;
  }
  broken_ = state_.store->Flush();
  if (broken_.ok()) RegisterBlocks();
  return broken_;
}

absl::Status Sequence::Decode(std::span<const uint32_t> prompt, const DecodeOptions& options,
                              const std::function<absl::Status(const DecodedToken&)>& emit) {
  ATTIC_RETURN_IF_ERROR(CheckUsable());
  ATTIC_RETURN_IF_ERROR(CheckTokens(prompt, "prompt_token_ids"));
  ATTIC_RETURN_IF_ERROR(
      CheckRange("max_tokens", options.max_tokens, 1, decoder_.options_.tokens_max));
  // The store would refuse it too, but in the middle of a pass.
  ATTIC_RETURN_IF_ERROR(ValidateSelection(options.selection, decoder_.options_.store.limits));
  if (prompt.empty() && !pending_.has_value()) {
    return absl::InvalidArgumentError("prompt_token_ids: empty, and so is the sequence");
  }
  const absl::Duration budget = options.attend_budget > absl::ZeroDuration()
                                    ? options.attend_budget
                                    : decoder_.options_.attend_budget;
  const ForwardRequest how{.mode = options.mode, .selection = options.selection, .budget = budget};
  ATTIC_RETURN_IF_ERROR(Read(prompt, how, [] { return absl::OkStatus(); }));
  for (uint32_t i = 0; i < options.max_tokens; ++i) {
    DecodedToken token;
    ATTIC_RETURN_IF_ERROR(Generate(options, budget, token));
    ATTIC_RETURN_IF_ERROR(emit(token));
  }
  if (!unregistered_.empty()) RegisterBlocks();
  return absl::OkStatus();
}

absl::Status Sequence::Generate(const DecodeOptions& options, absl::Duration budget,
                                DecodedToken& token) {
  const absl::Time start = absl::Now();
  const uint32_t read[] = {*pending_};
  ForwardResult result;
  ATTIC_RETURN_IF_ERROR(Pass({.tokens = read,
                              .logits = true,
                              .mode = options.mode,
                              .selection = options.selection,
                              .budget = budget,
                              .compare_exact = options.compare_exact},
                             result));
  // Sent ahead, so that the store holds these positions by the time they leave the window.
  const int64_t ahead = std::max<int64_t>(1, decoder_.options_.forward.window_tokens / 4);
  broken_ = state_.store->SendFrom(static_cast<size_t>(ahead));
  ATTIC_RETURN_IF_ERROR(broken_);
  pending_ = LargestIndex(result.logits);
  token = {
      .token_id = *pending_,
      .position = state_.position,
      .exact_token_id = result.exact_logits.empty() ? *pending_ : LargestIndex(result.exact_logits),
      .output_error = result.output_error,
      .coverage = result.coverage,
      .estimated_error = result.estimated_error,
      .token_ms = absl::ToDoubleMilliseconds(absl::Now() - start) - result.compare_ms,
      .attend_ms = result.attend_ms,
      .exact_attend_ms = result.exact_attend_ms,
      .bytes_read = result.bytes_read,
      .exact_bytes_read = result.exact_bytes_read,
      .degraded = result.degraded};
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Sequence>> Sequence::Fork(const std::string& new_session_id) {
  ATTIC_RETURN_IF_ERROR(CheckUsable());
  SequenceState copy;
  copy.position = state_.position;
  for (const SlidingCache& cache : state_.sliding) copy.sliding.push_back(cache.Fork());
  ATTIC_ASSIGN_OR_RETURN(copy.local, state_.local->Fork());
  ATTIC_ASSIGN_OR_RETURN(copy.store, state_.store->Fork(new_session_id));
  std::unique_ptr<Sequence> fork(new Sequence(decoder_, std::move(copy)));
  fork->pending_ = pending_;
  fork->hasher_ = hasher_;
  fork->unregistered_ = unregistered_;
  fork->registered_blocks_ = std::min(registered_blocks_, hasher_.blocks());
  return fork;
}

absl::Status Sequence::Close() { return state_.store->Close(); }

}  // namespace attic::worker
