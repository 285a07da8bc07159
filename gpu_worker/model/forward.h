// One pass of the decoder over a chunk of consecutive tokens of one sequence.
#ifndef ATTIC_GPU_WORKER_MODEL_FORWARD_H_
#define ATTIC_GPU_WORKER_MODEL_FORWARD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "api/types.h"
#include "base/thread_pool.h"
#include "gpu_worker/backend/backend.h"
#include "gpu_worker/model/full_attention.h"
#include "gpu_worker/model/model_weights.h"
#include "gpu_worker/model/sliding_attention.h"
#include "gpu_worker/model/store_session.h"

namespace attic::worker {

// What a sequence remembers between chunks. Every cache holds the same `position` tokens.
struct SequenceState {
  int64_t position = 0;                 // tokens read
  std::vector<SlidingCache> sliding;    // per sliding layer, in model order
  std::unique_ptr<LocalCache> local;    // of the full-attention layers
  std::unique_ptr<StoreSession> store;  // null: everything must fit into sink and window
};

struct ForwardOptions {
  int64_t sink_tokens = 4;
  int64_t window_tokens = 1024;
  ElementType element_type = ElementType::kBFloat16;  // of keys and values of full layers
  int64_t sample_stride = 64;  // every such position's queries are sent to the store
};

// Where the keys and values of full-attention layers go that a pass computes.
enum class Keep {
  kEverywhere,  // to sink or window, and to the store
  kLocally,     // to sink or window; the store holds them already
  // Nowhere: the store holds them, and the tokens will be in no window. Tokens attend all positions
  // up to their own through the store; only sliding layers remember the pass.
  kNowhere,
};

struct ForwardRequest {
  std::span<const uint32_t> tokens;  // each below vocab_size
  bool logits = false;               // of every token; otherwise the pass only fills the caches
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;
  absl::Duration budget = absl::Seconds(30);  // for each answer of the store
  bool compare_exact = false;                 // see ForwardResult; needs logits of one token
  Keep keep = Keep::kEverywhere;
};

struct ForwardResult {
  std::vector<float> logits;   // (tokens, vocab_size)
  double attend_ms = 0;        // of all full-attention layers
  double coverage = 1.0;       // smallest over layers, tokens and query heads
  double estimated_error = 0;  // largest over layers; see FullAttentionResult
  uint64_t bytes_read = 0;
  bool degraded = false;
  // With compare_exact: the same with the store's exact answer.
  std::vector<float> exact_logits;  // only when the last layer is a full-attention layer
  double output_error = 0;          // relative L2 of the attention output, worst layer
  double exact_attend_ms = 0;
  uint64_t exact_bytes_read = 0;
  double compare_ms = 0;  // spent on the comparison
};

// Owns the activations of a chunk; reused between chunks. Not thread-safe; computes on the pool.
class Forward {
 public:
  // All must outlive the object.
  Forward(const Model& model, Backend& backend, ThreadPool& pool, const ForwardOptions& options);

  // Reads the tokens into `state`. After an error the state is of no further use.
  absl::Status Run(const ForwardRequest& request, SequenceState& state, ForwardResult& result);

 private:
  struct TileScratch {
    std::vector<float> normed, scores, gate, up, silu;
  };
  using Tile = std::function<absl::Status(size_t begin, size_t end, TileScratch& scratch)>;

  void Prepare(const ForwardRequest& request, SequenceState& state);
  absl::Status RunTiles(size_t begin, size_t end, const Tile& tile);
  absl::Status Project(size_t layer, size_t first, float* keys, float* values);
  absl::Status ProjectQueries(size_t layer, size_t begin, const float* normed, size_t count,
                              float* queries);
  absl::Status SlidingLayer(size_t layer, size_t first, SlidingCache& cache);
  absl::Status FullLayer(size_t layer, size_t stored_layer, size_t first,
                         const ForwardRequest& request, SequenceState& state,
                         ForwardResult& result);
  absl::Status StoreKeys(size_t layer, size_t stored_layer, Keep keep, SequenceState& state);
  absl::Status SampleQueries(size_t layer);
  absl::Status CompareExact(size_t layer, const FullAttentionCall& call,
                            const FullAttentionResult& indexed, SequenceState& state,
                            ForwardResult& result);
  absl::Status Output(size_t layer, size_t count, const float* attention, float* x,
                      TileScratch& scratch);
  absl::Status Logits(size_t count, const float* x, std::vector<float>& logits);
  float* Queries(size_t token) { return queries_.data() + token * shape_.query_floats(); }
  float* Hidden(size_t token) { return hidden_.data() + token * model_.config.hidden_size; }

  const Model& model_;
  Backend& backend_;
  ThreadPool& pool_;
  const ForwardOptions options_;
  const AttentionShape shape_;

  // Of the chunk being read.
  size_t count_ = 0;
  int64_t position_ = 0;              // of its first token
  std::vector<float> hidden_;         // (count, hidden_size)
  std::vector<float> normed_;         // (count, hidden_size), of the layer's input
  std::vector<float> queries_;        // (count, q_heads, head_dim)
  std::vector<float> attention_;      // (count, q_heads, head_dim)
  std::vector<float> keys_, values_;  // (count, kv_heads, head_dim), of full layers
  std::vector<std::byte> stored_keys_, stored_values_;  // the same in the stored element type
  std::vector<float> samples_;                          // (samples, q_heads, head_dim)
  std::vector<float> cosines_, sines_;                  // (count, head_dim / 2)
  std::vector<TileScratch> scratch_;                    // one per thread that may run tiles
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_FORWARD_H_
