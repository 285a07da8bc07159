// Matrix products on the device, by cuBLAS. Needs no CUDA headers.
#ifndef ATTIC_GPU_WORKER_KERNELS_MATRIX_PRODUCT_H_
#define ATTIC_GPU_WORKER_KERNELS_MATRIX_PRODUCT_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attic::worker {

// A cuBLAS handle bound to a stream, which must outlive it. Not thread-safe.
class MatrixProduct {
 public:
  // `stream` is a cudaStream_t.
  static absl::StatusOr<std::unique_ptr<MatrixProduct>> Create(void* stream);
  ~MatrixProduct();
  MatrixProduct(const MatrixProduct&) = delete;
  MatrixProduct& operator=(const MatrixProduct&) = delete;

  // Queues out = in * weights' (+ out with `accumulate`) in float32. Device pointers, row-major:
  // weights (outputs, inputs), in (count, inputs), out (count, outputs). INVALID_ARGUMENT for
  // dimensions of 2^31 and above.
  absl::Status Multiply(const float* weights, size_t outputs, size_t inputs, const float* in,
                        size_t count, bool accumulate, float* out);

 private:
  explicit MatrixProduct(void* handle) : handle_(handle) {}
  void* handle_;  // cublasHandle_t
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_KERNELS_MATRIX_PRODUCT_H_
