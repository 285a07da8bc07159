// The sink and window of one sequence in host memory.
#ifndef ATTIC_GPU_WORKER_BACKEND_CPU_LOCAL_CACHE_H_
#define ATTIC_GPU_WORKER_BACKEND_CPU_LOCAL_CACHE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "base/thread_pool.h"
#include "gpu_worker/backend/backend.h"
#include "gpu_worker/backend/causal_attention.h"

namespace attic::worker {

// See LocalCache. Keys and values are widened to float32 on entry, one array per kv head with the
// sink in front, so that every scan reads consecutive rows. Attention runs on the pool.
class CpuLocalCache : public LocalCache {
 public:
  // `pool` must outlive the cache.
  CpuLocalCache(const LocalCacheOptions& options, ThreadPool& pool);
  ~CpuLocalCache() override;

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
    // Per kv head `sink_tokens` rows of the sink, then capacity_ rows of the window, of which
    // [window_row_, ...) are in use; rows have head_dim floats.
    std::vector<float> keys, values;
  };
  // The attention started last. Written by the caller while idle, by the pool while running.
  struct Work {
    size_t layer = 0;
    size_t count = 0;
    std::vector<float> queries, output, log_sum_exp;
  };

  // Row of `position` among the rows of a kv head.
  size_t RowOf(int64_t position) const;
  void MoveWindowToFront();
  CausalKeys KeysOf(const Layer& layer, size_t kv_head) const;
  void RunAttend();

  const LocalCacheOptions options_;
  ThreadPool& pool_;
  const size_t capacity_;  // window rows
  size_t window_row_ = 0;  // window row of window_begin_
  int64_t window_begin_;
  std::vector<Layer> layers_;

  Work work_;
  Mutex mutex_;
  CondVar finished_;
  bool running_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_BACKEND_CPU_LOCAL_CACHE_H_
