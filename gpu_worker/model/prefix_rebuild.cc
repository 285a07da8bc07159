#include "gpu_worker/model/prefix_rebuild.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"

namespace attic::worker {
namespace {

class Rebuild {
 public:
  Rebuild(size_t chunk_tokens, std::span<const uint32_t> tokens, const ForwardRequest& how,
          Forward& forward, SequenceState& state)
      : chunk_tokens_(static_cast<int64_t>(chunk_tokens)),
        tokens_(tokens),
        how_(how),
        forward_(forward),
        state_(state) {}

  // Reads positions from state.position to `end`.
  absl::Status ReadTo(int64_t end, Keep keep) {
    ForwardRequest request = how_;
    request.keep = keep;
    ForwardResult result;
    while (state_.position < end) {
      const int64_t count = std::min(chunk_tokens_, end - state_.position);
      request.tokens =
          tokens_.subspan(static_cast<size_t>(state_.position), static_cast<size_t>(count));
      ATTIC_RETURN_IF_ERROR(forward_.Run(request, state_, result));
    }
    return absl::OkStatus();
  }

 private:
  const int64_t chunk_tokens_;
  const std::span<const uint32_t> tokens_;
  const ForwardRequest& how_;
  Forward& forward_;
  SequenceState& state_;
};

}  // namespace

int64_t TokensToRebuild(const ModelConfig& config, int64_t window_tokens) {
  int64_t needed = 0;  // last tokens whose output of the layer, then input to it, must be right
  for (size_t i = config.layers.size(); i-- > 0;) {
    const int64_t before = int64_t{config.sliding_window} - 1;
    if (config.layers[i].full_attention) {
      needed = std::max(needed, window_tokens);
    } else {
      needed = needed == 0 ? before : needed + before;
    }
  }
  return needed;
}

absl::Status RebuildPrefix(const ModelConfig& config, const ForwardOptions& options,
                           size_t chunk_tokens, std::span<const uint32_t> tokens,
                           const ForwardRequest& how, Forward& forward, SequenceState& state) {
  ATTIC_CHECK(state.position == 0 && state.store != nullptr);
  const int64_t end = static_cast<int64_t>(tokens.size());
  const int64_t last = TokensToRebuild(config, options.window_tokens);
  Rebuild rebuild(chunk_tokens, tokens, how, forward, state);
  // A short prefix is read as a whole.
  if (end - last <= options.sink_tokens) return rebuild.ReadTo(end, Keep::kLocally);

  ATTIC_RETURN_IF_ERROR(rebuild.ReadTo(options.sink_tokens, Keep::kLocally));
  for (SlidingCache& cache : state.sliding) {
    cache = SlidingCache(config.attention_shape(), config.sliding_window);
  }
  // First those that only sliding layers remember: their keys in full layers are not right where
  // sliding layers before them saw too little, and must not get into a window.
  const int64_t window_begin = end - options.window_tokens;
  state.position = end - last;
  ATTIC_RETURN_IF_ERROR(rebuild.ReadTo(window_begin, Keep::kNowhere));
  state.local->SkipTo(window_begin);
  return rebuild.ReadTo(end, Keep::kLocally);
}

}  // namespace attic::worker
