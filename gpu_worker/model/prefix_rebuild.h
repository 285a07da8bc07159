// What a sequence remembers of tokens that the store holds already: sink, windows and nothing else
// is computed again.
#ifndef ATTIC_GPU_WORKER_MODEL_PREFIX_REBUILD_H_
#define ATTIC_GPU_WORKER_MODEL_PREFIX_REBUILD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "gpu_worker/model/forward.h"
#include "gpu_worker/model/model_config.h"

namespace attic::worker {

// How many of the last tokens must go through all layers again so that sliding layers and the
// windows of full-attention layers are as if all had been read. A sliding layer sees `window - 1`
// tokens before each one: every such layer on the way to another one's window adds as many. Full
// layers add none: what they attend is in the store.
int64_t TokensToRebuild(const ModelConfig& config, int64_t window_tokens);

// Brings a fresh `state`, whose store session holds exactly `tokens`, to where reading them would
// have brought it. Nothing is appended to the store. `chunk_tokens` go through the layers at a
// time, asking the store as `how` says. After an error the state is of no further use.
absl::Status RebuildPrefix(const ModelConfig& config, const ForwardOptions& options,
                           size_t chunk_tokens, std::span<const uint32_t> tokens,
                           const ForwardRequest& how, Forward& forward, SequenceState& state);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_PREFIX_REBUILD_H_
