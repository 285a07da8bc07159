// What a decoder needs from the hardware: matrix products with the model's weights, and exact
// attention over the sink and window of the full-attention layers. One interface, two
// implementations: `cpu` and `cuda`. All pointers are to host memory; an implementation keeps what
// stays (weights, caches) where it computes.
#ifndef ATTIC_GPU_WORKER_BACKEND_BACKEND_H_
#define ATTIC_GPU_WORKER_BACKEND_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention/element_type.h"
#include "base/thread_pool.h"

namespace attic::worker {

// Grouped-query attention of one layer; values have head_dim elements too.
struct AttentionShape {
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;  // divides q_heads; query head h uses kv head h / group()
  uint32_t head_dim = 0;
  float logit_scale = 1.0f;  // logits are logit_scale * q.k

  uint32_t group() const { return q_heads / kv_heads; }
  size_t query_floats() const { return size_t{q_heads} * head_dim; }  // of one token
  size_t key_floats() const { return size_t{kv_heads} * head_dim; }   // of one token
};

struct LocalCacheOptions {
  AttentionShape shape;
  size_t layers = 0;  // full-attention layers of the model, numbered [0, layers) in model order
  int64_t sink_tokens = 4;
  int64_t window_tokens = 1024;                       // most window tokens held when a step begins
  int64_t step_tokens_max = 2048;                     // most tokens one step appends
  ElementType element_type = ElementType::kBFloat16;  // of the keys and values appended
};

// Partial attention of `count` tokens (attention/partial_attention.h). Borrows. Null: over nothing.
struct PartialView {
  const float* output = nullptr;       // (count, q_heads, head_dim)
  const float* log_sum_exp = nullptr;  // (count, q_heads), natural logarithm
};

// Keys and values of one sequence that stay on the worker: per full-attention layer positions
// [0, sink_tokens) and [window_begin(), token_count(layer)). A step is: for each layer in order
// Append, then optionally StartAttend and FinishAttend, any number of times; after all layers
// DropWindowBefore. Not thread-safe: one step at a time, by one thread.
class LocalCache {
 public:
  virtual ~LocalCache() = default;

  // Appends the next `count` tokens of `layer`; sink positions are kept for ever. keys and values:
  // (count, kv_heads, head_dim) of options.element_type, copied before returning.
  // RESOURCE_EXHAUSTED when the layer would hold more than sink + window + step tokens.
  virtual absl::Status Append(size_t layer, size_t count, std::span<const std::byte> keys,
                              std::span<const std::byte> values) = 0;

  // Starts the attention of the last `count` tokens appended to `layer`, each over every token held
  // whose position is at most its own. queries: (count, q_heads, head_dim), copied before
  // returning. Returns without waiting for the result.
  virtual absl::Status StartAttend(size_t layer, size_t count, const float* queries) = 0;

  // Waits for the attention started last, merges `other` (over tokens not held here) into it, and
  // writes output (count, q_heads, head_dim) and log_sum_exp (count, q_heads).
  virtual absl::Status FinishAttend(const PartialView& other, float* output,
                                    float* log_sum_exp) = 0;

  // Forgets window tokens of every layer below `position`; sink tokens stay. Does nothing where
  // position <= window_begin().
  virtual void DropWindowBefore(int64_t position) = 0;

  // Goes on at `position` as if the tokens from the sink up to it had been appended and dropped:
  // the window is empty and begins there. Every layer must hold exactly the sink.
  virtual void SkipTo(int64_t position) = 0;

  // First position of the window, at least sink_tokens.
  virtual int64_t window_begin() const = 0;
  // Tokens appended to `layer` so far, dropped ones included: the position of the next.
  virtual int64_t token_count(size_t layer) const = 0;

  // An independent copy, between steps.
  virtual absl::StatusOr<std::unique_ptr<LocalCache>> Fork() const = 0;
};

// A weight matrix (outputs, inputs), row-major as in the checkpoint, held by the backend that
// loaded it.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual size_t outputs() const = 0;
  virtual size_t inputs() const = 0;
};

// Thread-safe. Outlives its caches and matrices.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // "cpu" or "cuda"

  // weights: (outputs, inputs) float32, copied.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> LoadMatrix(std::span<const float> weights,
                                                             size_t outputs, size_t inputs) = 0;

  // out[t] = weights * in[t], or out[t] += weights * in[t] with `accumulate`, for t in [0, count).
  // in: (count, inputs), out: (count, outputs), contiguous. Several threads may multiply at once;
  // the caller splits large counts.
  virtual absl::Status Multiply(const Matrix& weights, const float* in, size_t count,
                                bool accumulate, float* out) = 0;

  // RESOURCE_EXHAUSTED when the memory does not suffice.
  virtual absl::StatusOr<std::unique_ptr<LocalCache>> OpenCache(
      const LocalCacheOptions& options) = 0;
};

// The host backend: OpenBLAS (set to one thread a call, for the whole process) and
// attention/vector_kernels.h. Local attention runs on `pool`, which must outlive the backend.
std::unique_ptr<Backend> MakeCpuBackend(ThreadPool& pool);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_BACKEND_BACKEND_H_
