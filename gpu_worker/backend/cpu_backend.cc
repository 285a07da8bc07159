#include <cblas.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "gpu_worker/backend/backend.h"
#include "gpu_worker/backend/cpu_local_cache.h"

namespace attic::worker {
namespace {

class CpuMatrix : public Matrix {
 public:
  CpuMatrix(std::span<const float> weights, size_t outputs, size_t inputs)
      : weights_(weights.begin(), weights.end()), outputs_(outputs), inputs_(inputs) {}

  size_t outputs() const override { return outputs_; }
  size_t inputs() const override { return inputs_; }
  const float* data() const { return weights_.data(); }

 private:
  std::vector<float> weights_;
  size_t outputs_;
  size_t inputs_;
};

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(ThreadPool& pool) : pool_(pool) {
    // Callers split the work over the pool; threads of OpenBLAS's own would compete with it.
    openblas_set_num_threads(1);
  }

  std::string name() const override { return "cpu"; }

  absl::StatusOr<std::unique_ptr<Matrix>> LoadMatrix(std::span<const float> weights, size_t outputs,
                                                     size_t inputs) override {
    ATTIC_CHECK(weights.size() == outputs * inputs);
    return std::make_unique<CpuMatrix>(weights, outputs, inputs);
  }

  absl::Status Multiply(const Matrix& weights, const float* in, size_t count, bool accumulate,
                        float* out) override {
    const float* matrix = static_cast<const CpuMatrix&>(weights).data();
    const int outputs = static_cast<int>(weights.outputs());
    const int inputs = static_cast<int>(weights.inputs());
    const float beta = accumulate ? 1.0f : 0.0f;
    if (count == 1) {
      cblas_sgemv(CblasRowMajor, CblasNoTrans, outputs, inputs, 1.0f, matrix, inputs, in, 1, beta,
                  out, 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(count), outputs, inputs,
                  1.0f, in, inputs, matrix, inputs, beta, out, outputs);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<LocalCache>> OpenCache(const LocalCacheOptions& options) override {
    return std::make_unique<CpuLocalCache>(options, pool_);
  }

 private:
  ThreadPool& pool_;
};

}  // namespace

std::unique_ptr<Backend> MakeCpuBackend(ThreadPool& pool) {
  return std::make_unique<CpuBackend>(pool);
}

}  // namespace attic::worker
