// Exact attention over the sink and the window on the device. All pointers are device pointers
// unless said otherwise; nothing here allocates, waits, or needs CUDA headers. `stream` is a
// cudaStream_t. Results are partial attentions (attention/partial_attention.h): output normalised,
// log_sum_exp natural, (0, -infinity) over no tokens.
#ifndef ATTIC_GPU_WORKER_KERNELS_LOCAL_ATTENTION_H_
#define ATTIC_GPU_WORKER_KERNELS_LOCAL_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "attention/element_type.h"

namespace attic::worker {

inline constexpr uint32_t kDeviceHeadDimMax = 256;

// The last `count` tokens' queries over the keys held, each over those whose position is at most
// its own. Rows [0, sink_count) of keys and values are positions [0, sink_count); rows
// [window_row, window_row + window_count) are positions from window_begin on.
struct LocalAttention {
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;  // divides q_heads; query head h uses kv head h / (q_heads / kv_heads)
  uint32_t head_dim = 0;  // at most kDeviceHeadDimMax; of values too
  float logit_scale = 1.0f;

  const std::byte* keys = nullptr;    // (rows, kv_heads, head_dim) of element_type
  const std::byte* values = nullptr;  // (rows, kv_heads, head_dim) of element_type
  ElementType element_type = ElementType::kBFloat16;
  int64_t sink_count = 0;
  int64_t window_row = 0;
  int64_t window_begin = 0;
  int64_t window_count = 0;

  const float* queries = nullptr;  // (count, q_heads, head_dim)
  int64_t count = 0;               // 1 when decoding
  int64_t first_position = 0;      // of the first query

  float* output = nullptr;       // (count, q_heads, head_dim)
  float* log_sum_exp = nullptr;  // (count, q_heads)
  float* workspace = nullptr;    // LocalAttentionWorkspaceFloats(*this) floats
};

// Into how many parts the tokens are split so that few queries still fill the device
// (FlashDecoding); the parts' partial attentions are merged by a second kernel.
int64_t LocalAttentionSplits(const LocalAttention& attention);
size_t LocalAttentionWorkspaceFloats(const LocalAttention& attention);

// Queues the attention. Made for decoding, where it reads each key and value of a kv head once for
// its whole group; for many queries it is right but does not use the matrix units.
// INVALID_ARGUMENT naming the field for shapes it does not take, before anything is queued;
// otherwise the status of the launch (cuda_status.h).
absl::Status LaunchLocalAttention(const LocalAttention& attention, void* stream);

// Queues the merge of (other_output, other_log_sum_exp), for example the store's part, into
// (output, log_sum_exp), row by row: outputs are (rows, dim), log-sum-exps (rows).
absl::Status LaunchMergePartials(const float* other_output, const float* other_log_sum_exp,
                                 int64_t rows, uint32_t dim, float* output, float* log_sum_exp,
                                 void* stream);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_KERNELS_LOCAL_ATTENTION_H_
