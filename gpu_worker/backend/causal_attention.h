// Causal attention of many queries over sink and window, on the host.
#ifndef ATTIC_GPU_WORKER_BACKEND_CAUSAL_ATTENTION_H_
#define ATTIC_GPU_WORKER_BACKEND_CAUSAL_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "gpu_worker/backend/backend.h"

namespace attic::worker {

// The keys and values of one kv head that stay on the worker, float32 rows of head_dim. The sink is
// positions [0, sink_count), the window [window_begin, window_begin + window_count). Borrows.
struct CausalKeys {
  const float* sink_keys;
  const float* sink_values;
  int64_t sink_count;
  const float* window_keys;
  const float* window_values;
  int64_t window_begin;
  int64_t window_count;
};

// Queries at consecutive positions from `first_position`, and where their results go: token t,
// query head h of the whole layer is row t * q_heads + h of each array.
struct CausalQueries {
  const float* queries;  // (count, q_heads, head_dim)
  size_t count;
  int64_t first_position;
  float* output;       // (count, q_heads, head_dim)
  float* log_sum_exp;  // (count, q_heads)
};

// One query of each head of kv head `kv_head`'s group, every key at or below its position. Reads
// each key once for the group: the way of decoding.
void AttendOneToken(const AttentionShape& shape, size_t kv_head, const CausalKeys& keys,
                    const CausalQueries& queries);

// All queries of one query head, block by block with matrix products and a running maximum
// (FlashAttention, arXiv 2205.14135): the way of prefill.
void AttendManyTokens(const AttentionShape& shape, size_t q_head, const CausalKeys& keys,
                      const CausalQueries& queries);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_BACKEND_CAUSAL_ATTENTION_H_
