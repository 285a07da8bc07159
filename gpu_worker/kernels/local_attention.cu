// Attention of queries over sink and window, split over tokens (FlashDecoding; online softmax,
// arXiv 1805.02867).
//
// A block serves up to kHeads query heads of one kv head, one query token, one split. Per tile of
// kTileTokens keys: eight lanes score one key for all heads; one warp per head updates the running
// maximum and turns scores into weights; each warp adds every fourth value row into registers.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>

#include "gpu_worker/kernels/local_attention_kernels.h"

namespace attic::worker {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kLanesPerKey = 8;
constexpr int kKeysAtOnce = kThreads / kLanesPerKey;
constexpr int kChunk = 8;         // elements of a key a lane reads at once
constexpr int kLaneElements = 4;  // elements of a value row a lane adds at once
constexpr int kSpan = 32 * kLaneElements;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float ToFloat(__half x) { return __half2float(x); }

// out = p[0, kCount) widened, zero from `limit` on. `aligned`: rows are whole multiples of 16
// bytes, so that elements can be read 8 bytes (two-byte types) or 16 bytes (float32) at a time.
template <int kCount, typename T>
__device__ inline void LoadElements(const T* p, int limit, bool aligned, float (&out)[kCount]) {
  static_assert(kCount % 4 == 0);
  if (aligned && limit >= kCount) {
    struct alignas(4 * sizeof(T)) Four {
      T x[4];
    };
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const Four four = *reinterpret_cast<const Four*>(p + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) out[i + j] = ToFloat(four.x[j]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) out[i] = i < limit ? ToFloat(p[i]) : 0.0f;
}

// Where the rows of the block's kv head are.
template <typename T>
struct Rows {
  const T* base;       // of the kv head in row 0
  int64_t row_stride;  // elements
  int64_t sink_count;
  int64_t window_row;

  __device__ const T* at(int64_t token) const {
    const int64_t row = token < sink_count ? token : window_row + (token - sink_count);
    return base + row * row_stride;
  }
};

// How many tokens the query sees: those held whose position is at most its own.
__device__ inline int64_t VisibleTokens(const LocalAttentionLaunch& a, int64_t query) {
  const int64_t end = a.first_position + query + 1;
  const int64_t sink = min(a.sink_count, end);
  const int64_t window = min(max(end - a.window_begin, int64_t{0}), a.window_count);
  return sink + window;
}

// scores[g][j] = logit of token begin + j for head g; the lowest float beyond the tile's `tokens`.
template <typename T, int kHeads>
__device__ inline void ScoreTile(const Rows<T>& keys, int64_t begin, int tokens, int head_dim,
                                 float logit_scale, bool aligned,
                                 const float (&queries)[kHeads][2 * kSpan],
                                 float (&scores)[kHeads][kTileTokens]) {
  const int lane = threadIdx.x % kLanesPerKey;
  for (int j = threadIdx.x / kLanesPerKey; j < kTileTokens; j += kKeysAtOnce) {
    float sums[kHeads] = {};
    if (j < tokens) {
      const T* key = keys.at(begin + j);
      for (int d = lane * kChunk; d < head_dim; d += kLanesPerKey * kChunk) {
        float k[kChunk];
        LoadElements(key + d, head_dim - d, aligned, k);
#pragma unroll
        for (int g = 0; g < kHeads; ++g) {
#pragma unroll
          for (int i = 0; i < kChunk; ++i) sums[g] = fmaf(queries[g][d + i], k[i], sums[g]);
        }
      }
    }
#pragma unroll
    for (int g = 0; g < kHeads; ++g) {
      for (int step = kLanesPerKey / 2; step > 0; step /= 2) {
        sums[g] += __shfl_xor_sync(kAllLanes, sums[g], step, kLanesPerKey);
      }
      // Clamped as on the host: infinities and NaN must not reach the running maximum.
      const float logit = fminf(fmaxf(sums[g] * logit_scale, -FLT_MAX), FLT_MAX);
      if (lane == 0) scores[g][j] = logit;
    }
  }
}

// One warp per head: raises the running maximum, turns scores into weights (0 beyond `tokens`).
template <int kHeads>
__device__ inline void UpdateSoftmax(int tokens, float (&scores)[kHeads][kTileTokens],
                                     float (&max_logit)[kHeads], float (&sum)[kHeads],
                                     float (&rescale)[kHeads]) {
  static_assert(kTileTokens == 64);
  const int lane = threadIdx.x % 32;
  for (int g = threadIdx.x / 32; g < kHeads; g += kWarps) {
    const bool first = lane < tokens, second = lane + 32 < tokens;
    const float a = first ? scores[g][lane] : -INFINITY;
    const float b = second ? scores[g][lane + 32] : -INFINITY;
    float top = fmaxf(fmaxf(a, b), max_logit[g]);
    for (int step = 16; step > 0; step /= 2) {
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, step));
    }
    const float weight_a = first ? expf(a - top) : 0.0f;
    const float weight_b = second ? expf(b - top) : 0.0f;
    float added = weight_a + weight_b;
    for (int step = 16; step > 0; step /= 2) added += __shfl_xor_sync(kAllLanes, added, step);
    scores[g][lane] = weight_a;
    scores[g][lane + 32] = weight_b;
    __syncwarp();
    if (lane == 0) {
      const float factor = expf(max_logit[g] - top);  // 0 in the first tile
      rescale[g] = factor;
      sum[g] = sum[g] * factor + added;
      max_logit[g] = top;
    }
  }
}

// Each warp adds every kWarps-th value row; a lane holds kLaneElements elements of each span.
template <typename T, int kHeads, int kSpans>
__device__ inline void AddValues(const Rows<T>& values, int64_t begin, int tokens, int head_dim,
                                 bool aligned, const float (&weights)[kHeads][kTileTokens],
                                 const float (&rescale)[kHeads],
                                 float (&sums)[kHeads][kSpans][kLaneElements]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int g = 0; g < kHeads; ++g) {
    const float factor = rescale[g];
#pragma unroll
    for (int s = 0; s < kSpans; ++s) {
#pragma unroll
      for (int i = 0; i < kLaneElements; ++i) sums[g][s][i] *= factor;
    }
  }
#pragma unroll 4
  for (int j = threadIdx.x / 32; j < tokens; j += kWarps) {
    const T* value = values.at(begin + j);
#pragma unroll
    for (int s = 0; s < kSpans; ++s) {
      const int d = s * kSpan + lane * kLaneElements;
      float v[kLaneElements];
      LoadElements(value + d, head_dim - d, aligned, v);
#pragma unroll
      for (int g = 0; g < kHeads; ++g) {
#pragma unroll
        for (int i = 0; i < kLaneElements; ++i) {
          sums[g][s][i] = fmaf(weights[g][j], v[i], sums[g][s][i]);
        }
      }
    }
  }
}

// The warps add their shares one after the other: the same order, so the same result, every time.
template <int kHeads, int kSpans>
__device__ void AddWarpSums(const float (&sums)[kHeads][kSpans][kLaneElements],
                            float (&outputs)[kHeads][kSpans * kSpan]) {
  const int lane = threadIdx.x % 32;
  for (int warp = 0; warp < kWarps; ++warp) {
    if (threadIdx.x / 32 == warp) {
#pragma unroll
      for (int g = 0; g < kHeads; ++g) {
#pragma unroll
        for (int s = 0; s < kSpans; ++s) {
#pragma unroll
          for (int i = 0; i < kLaneElements; ++i) {
            outputs[g][s * kSpan + lane * kLaneElements + i] += sums[g][s][i];
          }
        }
      }
    }
    __syncthreads();
  }
}

template <typename T, int kHeads, int kSpans>
__global__ void __launch_bounds__(kThreads) LocalAttentionKernel(LocalAttentionLaunch a) {
  __shared__ float queries[kHeads][2 * kSpan];
  __shared__ float scores[kHeads][kTileTokens];
  __shared__ float max_logit[kHeads], sum[kHeads], rescale[kHeads];
  __shared__ float outputs[kHeads][kSpans * kSpan];

  const int group = a.q_heads / a.kv_heads;
  const int head_blocks = (group + kHeads - 1) / kHeads;
  const int kv_head = blockIdx.y / head_blocks;
  const int head_in_group = (blockIdx.y % head_blocks) * kHeads;
  const int heads = min(kHeads, group - head_in_group);
  const int first_head = kv_head * group + head_in_group;
  const int64_t query = blockIdx.z;
  const bool aligned = a.head_dim % 8 == 0;

  for (int i = threadIdx.x; i < kHeads * 2 * kSpan; i += kThreads) {
    const int g = i / (2 * kSpan), d = i % (2 * kSpan);
    queries[g][d] = g < heads && d < a.head_dim
                        ? a.queries[(query * a.q_heads + first_head + g) * a.head_dim + d]
                        : 0.0f;
  }
  for (int i = threadIdx.x; i < kHeads * kSpans * kSpan; i += kThreads) {
    outputs[i / (kSpans * kSpan)][i % (kSpans * kSpan)] = 0.0f;
  }
  if (threadIdx.x < kHeads) {
    max_logit[threadIdx.x] = -INFINITY;
    sum[threadIdx.x] = 0.0f;
  }
  __syncthreads();

  const int64_t row_stride = int64_t{a.kv_heads} * a.head_dim;
  const int64_t head_offset = int64_t{kv_head} * a.head_dim;
  const Rows<T> keys = {static_cast<const T*>(a.keys) + head_offset, row_stride, a.sink_count,
                        a.window_row};
  const Rows<T> values = {static_cast<const T*>(a.values) + head_offset, row_stride, a.sink_count,
                          a.window_row};
  const int64_t begin = blockIdx.x * a.split_tokens;
  const int64_t end = min(begin + a.split_tokens, VisibleTokens(a, query));
  float sums[kHeads][kSpans][kLaneElements] = {};
  for (int64_t tile = begin; tile < end; tile += kTileTokens) {
    const int tokens = static_cast<int>(min(int64_t{kTileTokens}, end - tile));
    ScoreTile<T, kHeads>(keys, tile, tokens, a.head_dim, a.logit_scale, aligned, queries, scores);
    __syncthreads();
    UpdateSoftmax<kHeads>(tokens, scores, max_logit, sum, rescale);
    __syncthreads();
    AddValues<T, kHeads, kSpans>(values, tile, tokens, a.head_dim, aligned, scores, rescale, sums);
    __syncthreads();
  }

  AddWarpSums<kHeads, kSpans>(sums, outputs);
  for (int i = threadIdx.x; i < heads * a.head_dim; i += kThreads) {
    const int g = i / a.head_dim, d = i % a.head_dim;
    const int64_t row = (query * a.q_heads + first_head + g) * a.splits + blockIdx.x;
    a.output[row * a.head_dim + d] = sum[g] > 0.0f ? outputs[g][d] / sum[g] : 0.0f;
    if (d == 0) a.log_sum_exp[row] = sum[g] > 0.0f ? max_logit[g] + logf(sum[g]) : -INFINITY;
  }
}

template <typename T, int kHeads>
int Launch(const LocalAttentionLaunch& a, void* stream) {
  const int group = a.q_heads / a.kv_heads;
  const int head_blocks = (group + kHeads - 1) / kHeads;
  const dim3 grid(a.splits, a.kv_heads * head_blocks, static_cast<unsigned>(a.count));
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (a.head_dim <= kSpan) {
    LocalAttentionKernel<T, kHeads, 1><<<grid, kThreads, 0, cuda_stream>>>(a);
  } else {
    LocalAttentionKernel<T, kHeads, 2><<<grid, kThreads, 0, cuda_stream>>>(a);
  }
  return cudaGetLastError();
}

template <typename T>
int LaunchGroup(const LocalAttentionLaunch& a, void* stream) {
  const int group = a.q_heads / a.kv_heads;
  if (group == 1) return Launch<T, 1>(a, stream);
  if (group == 2) return Launch<T, 2>(a, stream);
  if (group <= 4) return Launch<T, 4>(a, stream);
  return Launch<T, kHeadsPerBlockMax>(a, stream);
}

}  // namespace

int RunLocalAttentionFloat32(const LocalAttentionLaunch& launch, void* stream) {
  return LaunchGroup<float>(launch, stream);
}

int RunLocalAttentionBFloat16(const LocalAttentionLaunch& launch, void* stream) {
  return LaunchGroup<__nv_bfloat16>(launch, stream);
}

int RunLocalAttentionFloat16(const LocalAttentionLaunch& launch, void* stream) {
  return LaunchGroup<__half>(launch, stream);
}

}  // namespace attic::worker
