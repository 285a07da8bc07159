// The CUDA side of local_attention.h: plain types and error numbers only, because nvcc compiles it.
#ifndef ATTIC_GPU_WORKER_KERNELS_LOCAL_ATTENTION_KERNELS_H_
#define ATTIC_GPU_WORKER_KERNELS_LOCAL_ATTENTION_KERNELS_H_

#include <cstdint>

namespace attic::worker {

// Query heads of one kv head that a thread block serves; larger groups take several blocks.
inline constexpr int kHeadsPerBlockMax = 8;
// Keys scored between two updates of the running maximum.
inline constexpr int kTileTokens = 64;
// Results of any one split fit a launch: the z dimension of a grid is at most this.
inline constexpr int64_t kQueriesPerLaunchMax = 65535;

// What LocalAttention says, validated, plus the split. Tokens are counted in order of position over
// sink and window together: token j is row j of the sink or row window_row + j - sink_count.
struct LocalAttentionLaunch {
  const void* keys;
  const void* values;
  const float* queries;
  float* output;       // (count, q_heads, splits, head_dim)
  float* log_sum_exp;  // (count, q_heads, splits)
  int q_heads;
  int kv_heads;
  int head_dim;
  float logit_scale;
  int64_t sink_count;
  int64_t window_row;
  int64_t window_begin;
  int64_t window_count;
  int64_t first_position;
  int64_t count;
  int splits;
  int64_t split_tokens;  // a multiple of kTileTokens
};

// Each returns a cudaError_t: that of the launch.
int RunLocalAttentionFloat32(const LocalAttentionLaunch& launch, void* stream);
int RunLocalAttentionBFloat16(const LocalAttentionLaunch& launch, void* stream);
int RunLocalAttentionFloat16(const LocalAttentionLaunch& launch, void* stream);

// output[row], log_sum_exp[row] = merge over s of (parts_output[row][s],
// parts_log_sum_exp[row][s]).
int RunMergeSplits(const float* parts_output, const float* parts_log_sum_exp, int64_t rows,
                   int splits, int dim, float* output, float* log_sum_exp, void* stream);

// Merges (other_output, other_log_sum_exp) into (output, log_sum_exp).
int RunMergePartials(const float* other_output, const float* other_log_sum_exp, int64_t rows,
                     int dim, float* output, float* log_sum_exp, void* stream);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_KERNELS_LOCAL_ATTENTION_KERNELS_H_
