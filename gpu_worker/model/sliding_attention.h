// Attention of sliding-window layers: each token sees itself and the window - 1 tokens before it.
#ifndef ATTIC_GPU_WORKER_MODEL_SLIDING_ATTENTION_H_
#define ATTIC_GPU_WORKER_MODEL_SLIDING_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gpu_worker/backend/backend.h"

namespace attic::worker {

// Keys and values of one sliding layer: the last window - 1 tokens, and room for a chunk after
// them. Usage per chunk: write the chunk's keys and values at keys() and values(), attend, Advance.
// Not thread-safe, except that Attend calls of one chunk may run at the same time.
class SlidingCache {
 public:
  SlidingCache(const AttentionShape& shape, size_t window);

  // Makes room for chunks of `tokens` tokens; keeps what is held.
  void Reserve(size_t tokens);

  // Where the next chunk goes: (chunk tokens, kv_heads, head_dim). Valid until Reserve.
  float* keys() { return keys_.data() + rows_before_ * shape_.key_floats(); }
  float* values() { return values_.data() + rows_before_ * shape_.key_floats(); }

  // Floats of scratch one Attend call needs.
  size_t scratch_floats() const;

  // Attention of tokens [begin, end) of the chunk. queries and output: (end - begin, q_heads,
  // head_dim), of those tokens.
  void Attend(size_t begin, size_t end, const float* queries, float* output, float* scratch) const;

  // Ends a chunk of `tokens` tokens: keeps its last window - 1 tokens, or all where fewer are held.
  void Advance(size_t tokens);

  // An independent copy of what is held, without room for a chunk.
  SlidingCache Fork() const;

 private:
  struct Block;
  void AttendBlock(const Block& block, float* scratch) const;

  AttentionShape shape_;
  size_t window_;
  size_t rows_before_;                // window - 1: rows of earlier tokens in front of the chunk
  size_t held_ = 0;                   // of these, the last `held_` hold tokens
  std::vector<float> keys_, values_;  // (rows_before_ + room, kv_heads, head_dim)
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_SLIDING_ATTENTION_H_
