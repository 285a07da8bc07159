// The sink and window of one sequence in device memory.
#ifndef ATTIC_GPU_WORKER_BACKEND_CUDA_LOCAL_CACHE_H_
#define ATTIC_GPU_WORKER_BACKEND_CUDA_LOCAL_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu_worker/backend/backend.h"
#include "gpu_worker/kernels/device_memory.h"
#include "gpu_worker/kernels/local_attention.h"

namespace attic::worker {

// See LocalCache. Keys and values stay in the element type appended, rows of (kv_heads, head_dim):
// the sink's, then those of the window, which slides until it meets the end and is moved to the
// front. All device work of a cache is on its own stream.
class CudaLocalCache : public LocalCache {
 public:
  // INVALID_ARGUMENT for head_dim above kDeviceHeadDimMax, RESOURCE_EXHAUSTED when the memory does
  // not suffice, UNAVAILABLE without a device.
  static absl::StatusOr<std::unique_ptr<CudaLocalCache>> Create(const LocalCacheOptions& options);

  absl::Status Append(size_t layer, size_t count, std::span<const std::byte> keys,
                      std::span<const std::byte> values) override;
  absl::Status StartAttend(size_t layer, size_t count, const float* queries) override;
  absl::Status FinishAttend(const PartialView& other, float* output, float* log_sum_exp) override;
  void DropWindowBefore(int64_t position) override;
  void SkipTo(int64_t position) override;
  int64_t window_begin() const override { return window_begin_; }
  int64_t token_count(size_t layer) const override { return layers_[layer].tokens; }
  absl::StatusOr<std::unique_ptr<LocalCache>> Fork() const override;

 private:
  struct Layer {
    int64_t tokens = 0;
    DeviceBuffer keys, values;  // (rows(), kv_heads, head_dim)
  };

  CudaLocalCache(const LocalCacheOptions& options, std::unique_ptr<DeviceStream> stream);

  size_t token_bytes() const;  // keys, or values, of one token
  int64_t rows() const { return options_.sink_tokens + capacity_; }
  int64_t RowOf(int64_t position) const;
  int64_t WindowTokens(const Layer& layer) const;
  absl::Status MoveWindowToFront();
  // Rows `from` on to rows `to` < `from` on; the places may overlap.
  absl::Status MoveRows(const DeviceBuffer& buffer, int64_t from, int64_t to, int64_t count);

  const LocalCacheOptions options_;
  const int64_t capacity_;  // window rows
  int64_t window_row_ = 0;  // row of window_begin_, counted from the first window row
  int64_t window_begin_;
  std::unique_ptr<DeviceStream> stream_;  // outlives the buffers it works on
  std::vector<Layer> layers_;

  size_t started_count_ = 0;  // tokens of the attention started last
  DeviceBuffer queries_, output_, log_sum_exp_, workspace_, other_output_, other_log_sum_exp_;
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_BACKEND_CUDA_LOCAL_CACHE_H_
