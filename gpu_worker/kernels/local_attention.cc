#include "gpu_worker/kernels/local_attention.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gpu_worker/kernels/cuda_status.h"
#include "gpu_worker/kernels/local_attention_kernels.h"

namespace attic::worker {
namespace {

// Enough blocks for two on each multiprocessor of the largest device built for (132).
constexpr int64_t kBlocksWanted = 264;
// A part shorter than this costs more to merge than it gains.
constexpr int64_t kSplitTokensMin = 4 * kTileTokens;

int64_t Tokens(const LocalAttention& a) { return a.sink_count + a.window_count; }

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

absl::Status Validate(const LocalAttention& a) {
  if (a.kv_heads == 0 || a.q_heads == 0 || a.q_heads % a.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("q_heads: ", a.q_heads, " is no multiple of kv_heads ", a.kv_heads));
  }
  if (a.head_dim == 0 || a.head_dim > kDeviceHeadDimMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "head_dim: ", a.head_dim, " is outside [1, kDeviceHeadDimMax] (", kDeviceHeadDimMax, ")"));
  }
  if (a.count < 0 || a.sink_count < 0 || a.window_count < 0 || a.window_row < 0) {
    return absl::InvalidArgumentError("count, sink_count, window_row or window_count is negative");
  }
  if (a.count > kQueriesPerLaunchMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("count: ", a.count, " is above ", kQueriesPerLaunchMax));
  }
  return absl::OkStatus();
}

absl::Status RunTyped(ElementType type, const LocalAttentionLaunch& launch, void* stream) {
  const char* operation = "launch of the local attention kernel";
  switch (type) {
    case ElementType::kFloat32:
      return CudaStatus(RunLocalAttentionFloat32(launch, stream), operation);
    case ElementType::kBFloat16:
      return CudaStatus(RunLocalAttentionBFloat16(launch, stream), operation);
    case ElementType::kFloat16:
      return CudaStatus(RunLocalAttentionFloat16(launch, stream), operation);
  }
  return absl::InvalidArgumentError("element_type: unknown");
}

}  // namespace

int64_t LocalAttentionSplits(const LocalAttention& a) {
  if (a.kv_heads == 0 || a.count == 0) return 1;
  const int64_t group = a.q_heads / a.kv_heads;
  const int64_t blocks = a.count * a.kv_heads * CeilDivide(group, kHeadsPerBlockMax);
  const int64_t wanted = CeilDivide(kBlocksWanted, std::max<int64_t>(blocks, 1));
  return std::clamp<int64_t>(Tokens(a) / kSplitTokensMin, 1, wanted);
}

size_t LocalAttentionWorkspaceFloats(const LocalAttention& a) {
  const int64_t splits = LocalAttentionSplits(a);
  if (splits == 1) return 0;
  return static_cast<size_t>(a.count * a.q_heads * splits) * (a.head_dim + 1);
}

absl::Status LaunchLocalAttention(const LocalAttention& a, void* stream) {
  ATTIC_RETURN_IF_ERROR(Validate(a));
  if (a.count == 0) return absl::OkStatus();
  const int64_t splits = LocalAttentionSplits(a);
  const int64_t rows = a.count * a.q_heads;
  float* parts_output = splits == 1 ? a.output : a.workspace;
  float* parts_log_sum_exp = splits == 1 ? a.log_sum_exp : a.workspace + rows * splits * a.head_dim;
  const LocalAttentionLaunch launch = {
      .keys = a.keys,
      .values = a.values,
      .queries = a.queries,
      .output = parts_output,
      .log_sum_exp = parts_log_sum_exp,
      .q_heads = static_cast<int>(a.q_heads),
      .kv_heads = static_cast<int>(a.kv_heads),
      .head_dim = static_cast<int>(a.head_dim),
      .logit_scale = a.logit_scale,
      .sink_count = a.sink_count,
      .window_row = a.window_row,
      .window_begin = a.window_begin,
      .window_count = a.window_count,
      .first_position = a.first_position,
      .count = a.count,
      .splits = static_cast<int>(splits),
      .split_tokens = CeilDivide(CeilDivide(Tokens(a), splits), kTileTokens) * kTileTokens,
  };
  ATTIC_RETURN_IF_ERROR(RunTyped(a.element_type, launch, stream));
  if (splits == 1) return absl::OkStatus();
  return CudaStatus(RunMergeSplits(parts_output, parts_log_sum_exp, rows, launch.splits,
                                   launch.head_dim, a.output, a.log_sum_exp, stream),
                    "launch of the kernel that merges splits");
}

absl::Status LaunchMergePartials(const float* other_output, const float* other_log_sum_exp,
                                 int64_t rows, uint32_t dim, float* output, float* log_sum_exp,
                                 void* stream) {
  if (rows < 0 || rows > std::numeric_limits<int32_t>::max() || dim == 0 ||
      dim > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("rows or dim is outside [1, 2^31)");
  }
  if (rows == 0) return absl::OkStatus();
  return CudaStatus(RunMergePartials(other_output, other_log_sum_exp, rows, static_cast<int>(dim),
                                     output, log_sum_exp, stream),
                    "launch of the kernel that merges partial attentions");
}

}  // namespace attic::worker
