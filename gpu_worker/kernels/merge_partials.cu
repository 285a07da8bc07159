// Merging of partial attentions by log-sum-exp; see attention/partial_attention.h for the formula.
#include <cuda_runtime.h>

#include <cmath>

#include "gpu_worker/kernels/local_attention_kernels.h"

namespace attic::worker {
namespace {

constexpr int kThreads = 128;

// One block per row. Every thread finds the weights for itself: splits are few.
__global__ void MergeSplitsKernel(const float* parts_output, const float* parts_log_sum_exp,
                                  int splits, int dim, float* output, float* log_sum_exp) {
  const int64_t row = blockIdx.x;
  const float* logs = parts_log_sum_exp + row * splits;
  float max = -INFINITY;
  for (int s = 0; s < splits; ++s) max = fmaxf(max, logs[s]);
  float sum = 0.0f;
  if (max != -INFINITY) {
    for (int s = 0; s < splits; ++s) sum += expf(logs[s] - max);
  }
  for (int i = threadIdx.x; i < dim; i += kThreads) {
    float value = 0.0f;
    if (sum > 0.0f) {
      for (int s = 0; s < splits; ++s) {
        value += expf(logs[s] - max) * parts_output[(row * splits + s) * dim + i];
      }
      value /= sum;
    }
    output[row * dim + i] = value;
  }
  if (threadIdx.x == 0) log_sum_exp[row] = sum > 0.0f ? max + logf(sum) : -INFINITY;
}

__global__ void MergePartialsKernel(const float* other_output, const float* other_log_sum_exp,
                                    int dim, float* output, float* log_sum_exp) {
  const int64_t row = blockIdx.x;
  const float own_log = log_sum_exp[row];
  const float other_log = other_log_sum_exp[row];
  const float max = fmaxf(own_log, other_log);
  if (other_log == -INFINITY || max == -INFINITY) return;
  const float own = expf(own_log - max);
  const float other = expf(other_log - max);
  const float sum = own + other;
  // An empty own part may hold anything; it is not read.
  for (int i = threadIdx.x; i < dim; i += kThreads) {
    const float kept = own_log == -INFINITY ? 0.0f : own * output[row * dim + i];
    output[row * dim + i] = (kept + other * other_output[row * dim + i]) / sum;
  }
  __syncthreads();  // every thread has read log_sum_exp[row]
  if (threadIdx.x == 0) log_sum_exp[row] = max + logf(sum);
}

}  // namespace

int RunMergeSplits(const float* parts_output, const float* parts_log_sum_exp, int64_t rows,
                   int splits, int dim, float* output, float* log_sum_exp, void* stream) {
  MergeSplitsKernel<<<static_cast<unsigned>(rows), kThreads, 0,
                      static_cast<cudaStream_t>(stream)>>>(parts_output, parts_log_sum_exp, splits,
                                                           dim, output, log_sum_exp);
  return cudaGetLastError();
}

int RunMergePartials(const float* other_output, const float* other_log_sum_exp, int64_t rows,
                     int dim, float* output, float* log_sum_exp, void* stream) {
  MergePartialsKernel<<<static_cast<unsigned>(rows), kThreads, 0,
                        static_cast<cudaStream_t>(stream)>>>(other_output, other_log_sum_exp, dim,
                                                             output, log_sum_exp);
  return cudaGetLastError();
}

}  // namespace attic::worker
