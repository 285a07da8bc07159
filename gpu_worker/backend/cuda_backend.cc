#include "gpu_worker/backend/cuda_backend.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "gpu_worker/backend/cuda_local_cache.h"
#include "gpu_worker/kernels/device_memory.h"
#include "gpu_worker/kernels/matrix_product.h"

namespace attic::worker {
namespace {

class CudaMatrix : public Matrix {
 public:
  CudaMatrix(DeviceBuffer weights, size_t outputs, size_t inputs)
      : weights_(std::move(weights)), outputs_(outputs), inputs_(inputs) {}

  size_t outputs() const override { return outputs_; }
  size_t inputs() const override { return inputs_; }
  const float* data() const { return weights_.floats(); }

 private:
  DeviceBuffer weights_;
  size_t outputs_;
  size_t inputs_;
};

// What one product at a time needs. Destroyed in reverse: the handle before its stream.
struct Lane {
  std::unique_ptr<DeviceStream> stream;
  std::unique_ptr<MatrixProduct> product;
  DeviceBuffer in, out;
};

class CudaBackend : public Backend {
 public:
  std::string name() const override { return "cuda"; }

  absl::StatusOr<std::unique_ptr<Matrix>> LoadMatrix(std::span<const float> weights, size_t outputs,
                                                     size_t inputs) override {
    ATTIC_CHECK(weights.size() == outputs * inputs);
    DeviceBuffer buffer;
    ATTIC_RETURN_IF_ERROR(buffer.Reserve(weights.size_bytes()));
    ATTIC_ASSIGN_OR_RETURN(std::unique_ptr<Lane> lane, TakeLane());
    absl::Status status =
        lane->stream->CopyToDevice(buffer.data(), weights.data(), weights.size_bytes());
    if (status.ok()) status = lane->stream->Synchronize();
    ReturnLane(std::move(lane));
    if (!status.ok()) return status;
    return std::make_unique<CudaMatrix>(std::move(buffer), outputs, inputs);
  }

  absl::Status Multiply(const Matrix& weights, const float* in, size_t count, bool accumulate,
                        float* out) override {
    if (count == 0) return absl::OkStatus();
    ATTIC_ASSIGN_OR_RETURN(std::unique_ptr<Lane> lane, TakeLane());
    const absl::Status status =
        MultiplyIn(*lane, static_cast<const CudaMatrix&>(weights), in, count, accumulate, out);
    ReturnLane(std::move(lane));
    return status;
  }

  absl::StatusOr<std::unique_ptr<LocalCache>> OpenCache(const LocalCacheOptions& options) override {
    ATTIC_ASSIGN_OR_RETURN(std::unique_ptr<CudaLocalCache> cache, CudaLocalCache::Create(options));
    return cache;
  }

 private:
  static absl::Status MultiplyIn(Lane& lane, const CudaMatrix& weights, const float* in,
                                 size_t count, bool accumulate, float* out) {
    const size_t in_bytes = count * weights.inputs() * sizeof(float);
    const size_t out_bytes = count * weights.outputs() * sizeof(float);
    ATTIC_RETURN_IF_ERROR(lane.in.Reserve(in_bytes));
    ATTIC_RETURN_IF_ERROR(lane.out.Reserve(out_bytes));
    ATTIC_RETURN_IF_ERROR(lane.stream->CopyToDevice(lane.in.data(), in, in_bytes));
    if (accumulate) {
      ATTIC_RETURN_IF_ERROR(lane.stream->CopyToDevice(lane.out.data(), out, out_bytes));
    }
    ATTIC_RETURN_IF_ERROR(lane.product->Multiply(weights.data(), weights.outputs(),
                                                 weights.inputs(), lane.in.floats(), count,
                                                 accumulate, lane.out.floats()));
    return lane.stream->CopyToHost(out, lane.out.data(), out_bytes);
  }

  // A lane nobody else uses: one returned before, or a new one. There are never more than threads
  // that multiply at once.
  absl::StatusOr<std::unique_ptr<Lane>> TakeLane() {
    {
      MutexLock lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<Lane> lane = std::move(idle_.back());
        idle_.pop_back();
        return lane;
      }
    }
    auto lane = std::make_unique<Lane>();
    ATTIC_ASSIGN_OR_RETURN(lane->stream, DeviceStream::Create());
    ATTIC_ASSIGN_OR_RETURN(lane->product, MatrixProduct::Create(lane->stream->handle()));
    return lane;
  }

  void ReturnLane(std::unique_ptr<Lane> lane) {
    MutexLock lock(mutex_);
    idle_.push_back(std::move(lane));
  }

  Mutex mutex_;
  std::vector<std::unique_ptr<Lane>> idle_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(ThreadPool& /*pool*/) {
  ATTIC_RETURN_IF_ERROR(CheckDevice());
  return std::make_unique<CudaBackend>();
}

}  // namespace attic::worker
