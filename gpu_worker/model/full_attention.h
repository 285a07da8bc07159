// The attention of one full-attention layer: sink and window on the worker, everything between in
// the store, both at the same time, merged by log-sum-exp.
#ifndef ATTIC_GPU_WORKER_MODEL_FULL_ATTENTION_H_
#define ATTIC_GPU_WORKER_MODEL_FULL_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "gpu_worker/backend/backend.h"
#include "gpu_worker/model/store_session.h"

namespace attic::worker {

// The queries of the last `count` tokens appended to a full-attention layer.
struct FullAttentionCall {
  size_t stored_layer = 0;
  size_t count = 0;
  const float* queries = nullptr;  // (count, q_heads, head_dim), length scaling included
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;
  absl::Duration budget = absl::Seconds(30);  // for the store's answer
};

struct FullAttentionResult {
  std::vector<float> output;       // (count, q_heads, head_dim)
  std::vector<float> log_sum_exp;  // (count, q_heads)
  double coverage = 1.0;           // smallest over tokens and query heads, of all tokens attended
  // Of the store's own outputs, largest over tokens and query heads, as it estimates. The merge
  // with the exact part scales an output's error by the store's share of the mass: an upper bound,
  // unless the two outputs cancel each other. Errors of log_sum_exp are not in it.
  double estimated_error = 0.0;
  bool degraded = false;
  uint64_t bytes_read = 0;  // by the store
  double milliseconds = 0;
};

// Every token attends the sink, the window up to itself, and the store's positions
// [sink_tokens, local.window_begin()). Waits for the store to hold those positions where needed.
// DEADLINE_EXCEEDED and UNAVAILABLE only after a second question with 30 seconds for the answer.
absl::Status AttendFull(const AttentionShape& shape, int64_t sink_tokens,
                        const FullAttentionCall& call, LocalCache& local, StoreSession* store,
                        FullAttentionResult& result);

// The same with nothing on the worker: every token attends the store's positions [0, its own],
// where `first_position` is that of the first token. The store must hold them.
absl::Status AttendHeld(int64_t first_position, const FullAttentionCall& call, StoreSession& store,
                        FullAttentionResult& result);

// |a - b| / |b| over all elements (Euclidean norms); 0 when both are zero.
double RelativeError(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_FULL_ATTENTION_H_
