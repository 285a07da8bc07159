#include "gpu_worker/kernels/matrix_product.h"

#include <cublas_v2.h>

#include <algorithm>
#include <limits>

#include "base/status_macros.h"
#include "gpu_worker/kernels/cuda_status.h"

namespace attic::worker {

absl::StatusOr<std::unique_ptr<MatrixProduct>> MatrixProduct::Create(void* stream) {
  cublasHandle_t handle = nullptr;
  ATTIC_RETURN_IF_ERROR(CublasStatus(cublasCreate(&handle), "cublasCreate"));
  std::unique_ptr<MatrixProduct> product(new MatrixProduct(handle));
  ATTIC_RETURN_IF_ERROR(
      CublasStatus(cublasSetStream(handle, static_cast<cudaStream_t>(stream)), "cublasSetStream"));
  return product;
}

MatrixProduct::~MatrixProduct() { cublasDestroy(static_cast<cublasHandle_t>(handle_)); }

absl::Status MatrixProduct::Multiply(const float* weights, size_t outputs, size_t inputs,
                                     const float* in, size_t count, bool accumulate, float* out) {
  if (std::max({outputs, inputs, count}) > size_t{std::numeric_limits<int>::max()}) {
    return absl::InvalidArgumentError("outputs, inputs or count of a product is 2^31 or more");
  }
  // cuBLAS is column-major: it sees weights as (inputs, outputs), in as (inputs, count) and out as
  // (outputs, count), so out = weights' * in.
  const float alpha = 1.0f;
  const float beta = accumulate ? 1.0f : 0.0f;
  const int m = static_cast<int>(outputs), n = static_cast<int>(count),
            k = static_cast<int>(inputs);
  return CublasStatus(cublasSgemm(static_cast<cublasHandle_t>(handle_), CUBLAS_OP_T, CUBLAS_OP_N, m,
                                  n, k, &alpha, weights, k, in, k, &beta, out, m),
                      "cublasSgemm");
}

}  // namespace attic::worker
