#include "gpu_worker/model/forward.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "attention/vector_kernels.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "gpu_worker/model/layer_math.h"

namespace attic::worker {
namespace {

// Tokens one thread takes through a layer at a time: enough rows to pay for the matrix products'
// packing, few enough that their activations stay in the second-level cache.
constexpr size_t kTileTokens = 128;

constexpr absl::Duration kExactBudget = absl::Minutes(2);

void Grow(std::vector<float>& buffer, size_t floats) {
  if (buffer.size() < floats) buffer.resize(floats);
}

}  // namespace

Forward::Forward(const Model& model, Backend& backend, ThreadPool& pool,
                 const ForwardOptions& options)
    : model_(model),
      backend_(backend),
      pool_(pool),
      options_(options),
      shape_(model.config.attention_shape()),
      scratch_(pool.thread_count() + 1) {}

absl::Status Forward::Run(const ForwardRequest& request, SequenceState& state,
                          ForwardResult& result) {
  ATTIC_CHECK(!request.compare_exact || (request.logits && request.tokens.size() == 1));
  result = ForwardResult();
  Prepare(request, state);
  const ModelConfig& config = model_.config;
  size_t sliding = 0, full = 0;
  for (size_t layer = 0; layer < config.layers.size(); ++layer) {
    // Without logits nobody needs the last layer's output: only its keys and values are kept.
    const bool output_needed = request.logits || layer + 1 < config.layers.size();
    const size_t first = output_needed ? 0 : count_;
    if (config.layers[layer].full_attention) {
      ATTIC_RETURN_IF_ERROR(FullLayer(layer, full++, first, request, state, result));
    } else {
      ATTIC_RETURN_IF_ERROR(SlidingLayer(layer, first, state.sliding[sliding++]));
    }
  }
  state.position += static_cast<int64_t>(count_);
  if (state.local != nullptr && request.keep != Keep::kNowhere) {
    state.local->DropWindowBefore(state.position - options_.window_tokens);
  }
  if (!request.logits) return absl::OkStatus();
  return Logits(count_, hidden_.data(), result.logits);
}

void Forward::Prepare(const ForwardRequest& request, SequenceState& state) {
  const ModelConfig& config = model_.config;
  count_ = request.tokens.size();
  position_ = state.position;
  const size_t half = shape_.head_dim / 2;
  Grow(hidden_, count_ * config.hidden_size);
  Grow(normed_, count_ * config.hidden_size);
  Grow(queries_, count_ * shape_.query_floats());
  Grow(attention_, count_ * shape_.query_floats());
  Grow(keys_, count_ * shape_.key_floats());
  Grow(values_, count_ * shape_.key_floats());
  Grow(cosines_, count_ * half);
  Grow(sines_, count_ * half);
  const size_t stored_bytes = count_ * shape_.key_floats() * ElementBytes(options_.element_type);
  stored_keys_.resize(stored_bytes);
  stored_values_.resize(stored_bytes);
  for (SlidingCache& cache : state.sliding) cache.Reserve(count_);
  const absl::Status filled = RunTiles(0, count_, [&](size_t begin, size_t end, TileScratch&) {
    for (size_t t = begin; t < end; ++t) {
      ATTIC_CHECK(request.tokens[t] < config.vocab_size);
      const float* row = model_.embeddings.data() + request.tokens[t] * size_t{config.hidden_size};
      std::copy_n(row, config.hidden_size, Hidden(t));
    }
    FillRotaryTable(position_ + static_cast<int64_t>(begin), end - begin, half, config.rope_theta,
                    cosines_.data() + begin * half, sines_.data() + begin * half);
    return absl::OkStatus();
  });
  ATTIC_CHECK(filled.ok());
}

absl::Status Forward::RunTiles(size_t begin, size_t end, const Tile& tile) {
  if (end - begin <= kTileTokens) {
    return begin == end ? absl::OkStatus() : tile(begin, end, scratch_[0]);
  }
  const size_t tiles = (end - begin + kTileTokens - 1) / kTileTokens;
  std::atomic<size_t> next{0};
  Mutex mutex;
  absl::Status first_error;
  pool_.ParallelFor(std::min(scratch_.size(), tiles), [&](size_t thread) {
    for (size_t i = next.fetch_add(1); i < tiles; i = next.fetch_add(1)) {
      const size_t from = begin + i * kTileTokens;
      const absl::Status status = tile(from, std::min(end, from + kTileTokens), scratch_[thread]);
      if (status.ok()) continue;
      MutexLock lock(mutex);
      first_error.Update(status);
    }
  });
  return first_error;
}

// Norms the layer's input and computes keys and values of all tokens, queries from token `first`.
absl::Status Forward::Project(size_t layer, size_t first, float* keys, float* values) {
  const LayerWeights& weights = model_.layers[layer];
  const ModelConfig& config = model_.config;
  const size_t half = shape_.head_dim / 2;
  return RunTiles(0, count_, [&](size_t begin, size_t end, TileScratch&) -> absl::Status {
    const size_t count = end - begin;
    float* normed = normed_.data() + begin * config.hidden_size;
    float* tile_keys = keys + begin * shape_.key_floats();
    RmsNormRows(Hidden(begin), count, weights.input_norm, config.rms_norm_eps, normed);
    ATTIC_RETURN_IF_ERROR(backend_.Multiply(*weights.k, normed, count, false, tile_keys));
    ATTIC_RETURN_IF_ERROR(
        backend_.Multiply(*weights.v, normed, count, false, values + begin * shape_.key_floats()));
    if (!weights.k_norm.empty()) {
      RmsNormRows(tile_keys, count * shape_.kv_heads, weights.k_norm, config.rms_norm_eps,
                  tile_keys);
    }
    if (config.layers[layer].rotary) {
      RotateHeads(cosines_.data() + begin * half, sines_.data() + begin * half, count,
                  shape_.kv_heads, half, tile_keys);
    }
    if (begin < first) return absl::OkStatus();
    return ProjectQueries(layer, begin, normed, count, Queries(begin));
  });
}

// Queries of `count` consecutive tokens from `begin` of the chunk.
absl::Status Forward::ProjectQueries(size_t layer, size_t begin, const float* normed, size_t count,
                                     float* queries) {
  const LayerWeights& weights = model_.layers[layer];
  const ModelConfig& config = model_.config;
  const size_t half = shape_.head_dim / 2;
  ATTIC_RETURN_IF_ERROR(backend_.Multiply(*weights.q, normed, count, false, queries));
  if (!weights.q_norm.empty()) {
    RmsNormRows(queries, count * shape_.q_heads, weights.q_norm, config.rms_norm_eps, queries);
  }
  if (config.layers[layer].rotary) {
    RotateHeads(cosines_.data() + begin * half, sines_.data() + begin * half, count, shape_.q_heads,
                half, queries);
  }
  if (!config.layers[layer].full_attention) return absl::OkStatus();
  for (size_t t = 0; t < count; ++t) {
    const float scale = config.LengthScale(position_ + static_cast<int64_t>(begin + t) + 1);
    if (scale != 1.0f) {
      Scale(scale, {queries + t * shape_.query_floats(), shape_.query_floats()});
    }
  }
  return absl::OkStatus();
}

absl::Status Forward::SlidingLayer(size_t layer, size_t first, SlidingCache& cache) {
  ATTIC_RETURN_IF_ERROR(Project(layer, first, cache.keys(), cache.values()));
  ATTIC_RETURN_IF_ERROR(
      RunTiles(first, count_, [&](size_t begin, size_t end, TileScratch& scratch) {
        float* attention = attention_.data() + begin * shape_.query_floats();
        Grow(scratch.scores, cache.scratch_floats());
        cache.Attend(begin, end, Queries(begin), attention, scratch.scores.data());
        return Output(layer, end - begin, attention, Hidden(begin), scratch);
      }));
  cache.Advance(count_);
  return absl::OkStatus();
}

absl::Status Forward::FullLayer(size_t layer, size_t stored_layer, size_t first,
                                const ForwardRequest& request, SequenceState& state,
                                ForwardResult& result) {
  ATTIC_RETURN_IF_ERROR(Project(layer, first, keys_.data(), values_.data()));
  if (request.keep == Keep::kEverywhere) ATTIC_RETURN_IF_ERROR(SampleQueries(layer));
  ATTIC_RETURN_IF_ERROR(StoreKeys(layer, stored_layer, request.keep, state));
  if (first == count_) return absl::OkStatus();

  const FullAttentionCall call{.stored_layer = stored_layer,
                               .count = count_,
                               .queries = queries_.data(),
                               .mode = request.mode,
                               .selection = request.selection,
                               .budget = request.budget};
  FullAttentionResult attended;
  if (request.keep == Keep::kNowhere) {
    ATTIC_RETURN_IF_ERROR(AttendHeld(position_, call, *state.store, attended));
  } else {
    ATTIC_RETURN_IF_ERROR(
        AttendFull(shape_, options_.sink_tokens, call, *state.local, state.store.get(), attended));
  }
  result.attend_ms += attended.milliseconds;
  result.coverage = std::min(result.coverage, attended.coverage);
  result.estimated_error = std::max(result.estimated_error, attended.estimated_error);
  result.bytes_read += attended.bytes_read;
  result.degraded |= attended.degraded;
  if (request.compare_exact) {
    ATTIC_RETURN_IF_ERROR(CompareExact(layer, call, attended, state, result));
  }
  return RunTiles(0, count_, [&](size_t begin, size_t end, TileScratch& scratch) {
    return Output(layer, end - begin, attended.output.data() + begin * shape_.query_floats(),
                  Hidden(begin), scratch);
  });
}

// Computes the queries of every sample_stride'th position from the normed input in normed_.
absl::Status Forward::SampleQueries(size_t layer) {
  const int64_t stride = options_.sample_stride;
  samples_.clear();
  for (int64_t position = (position_ + stride - 1) / stride * stride;
       position < position_ + static_cast<int64_t>(count_); position += stride) {
    const size_t t = static_cast<size_t>(position - position_);
    samples_.resize(samples_.size() + shape_.query_floats());
    ATTIC_RETURN_IF_ERROR(
        ProjectQueries(layer, t, normed_.data() + t * model_.config.hidden_size, 1,
                       samples_.data() + samples_.size() - shape_.query_floats()));
  }
  return absl::OkStatus();
}

// The worker keeps exactly what the store holds, so both round to the same element type.
absl::Status Forward::StoreKeys(size_t layer, size_t stored_layer, Keep keep,
                                SequenceState& state) {
  ATTIC_CHECK(model_.config.layers[layer].full_attention);
  if (keep == Keep::kNowhere) return absl::OkStatus();
  const size_t floats = count_ * shape_.key_floats();
  FromFloat32({keys_.data(), floats}, options_.element_type, stored_keys_.data());
  FromFloat32({values_.data(), floats}, options_.element_type, stored_values_.data());
  ATTIC_RETURN_IF_ERROR(state.local->Append(stored_layer, count_, stored_keys_, stored_values_));
  if (state.store == nullptr || keep == Keep::kLocally) return absl::OkStatus();
  return state.store->Append(stored_layer, count_, stored_keys_, stored_values_, samples_);
}

absl::Status Forward::CompareExact(size_t layer, const FullAttentionCall& call,
                                   const FullAttentionResult& indexed, SequenceState& state,
                                   ForwardResult& result) {
  const absl::Time start = absl::Now();
  FullAttentionCall exact_call = call;
  exact_call.mode = AttendMode::kExact;
  exact_call.budget = kExactBudget;
  FullAttentionResult exact;
  ATTIC_RETURN_IF_ERROR(
      AttendFull(shape_, options_.sink_tokens, exact_call, *state.local, state.store.get(), exact));
  result.exact_attend_ms += exact.milliseconds;
  result.exact_bytes_read += exact.bytes_read;
  result.output_error = std::max(result.output_error, RelativeError(indexed.output, exact.output));
  if (layer + 1 == model_.config.layers.size()) {
    std::vector<float> x(hidden_.begin(), hidden_.begin() + model_.config.hidden_size);
    ATTIC_RETURN_IF_ERROR(Output(layer, 1, exact.output.data(), x.data(), scratch_[0]));
    ATTIC_RETURN_IF_ERROR(Logits(1, x.data(), result.exact_logits));
  }
  result.compare_ms += absl::ToDoubleMilliseconds(absl::Now() - start);
  return absl::OkStatus();
}

// The rest of a layer after its attention: x += o * attention, then the MLP if there is one.
absl::Status Forward::Output(size_t layer, size_t count, const float* attention, float* x,
                             TileScratch& scratch) {
  const LayerWeights& weights = model_.layers[layer];
  const ModelConfig& config = model_.config;
  ATTIC_RETURN_IF_ERROR(backend_.Multiply(*weights.o, attention, count, true, x));
  if (!config.layers[layer].dense) return absl::OkStatus();
  const size_t inner = count * config.intermediate_size;
  Grow(scratch.normed, count * config.hidden_size);
  Grow(scratch.gate, inner);
  Grow(scratch.up, inner);
  Grow(scratch.silu, inner);
  RmsNormRows(x, count, weights.post_attention_norm, config.rms_norm_eps, scratch.normed.data());
  ATTIC_RETURN_IF_ERROR(
      backend_.Multiply(*weights.gate, scratch.normed.data(), count, false, scratch.gate.data()));
  ATTIC_RETURN_IF_ERROR(
      backend_.Multiply(*weights.up, scratch.normed.data(), count, false, scratch.up.data()));
  SwiGlu({scratch.gate.data(), inner}, {scratch.up.data(), inner}, scratch.silu.data());
  return backend_.Multiply(*weights.down, scratch.gate.data(), count, true, x);
}

absl::Status Forward::Logits(size_t count, const float* x, std::vector<float>& logits) {
  std::vector<float> normed(count * model_.config.hidden_size);
  RmsNormRows(x, count, model_.final_norm, model_.config.rms_norm_eps, normed.data());
  logits.resize(count * model_.config.vocab_size);
  return backend_.Multiply(*model_.lm_head, normed.data(), count, false, logits.data());
}

}  // namespace attic::worker
