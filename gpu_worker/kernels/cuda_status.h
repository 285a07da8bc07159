// The one table from CUDA and cuBLAS errors to absl::Status. Needs no CUDA headers.
#ifndef ATTIC_GPU_WORKER_KERNELS_CUDA_STATUS_H_
#define ATTIC_GPU_WORKER_KERNELS_CUDA_STATUS_H_

#include "absl/status/status.h"

namespace attic::worker {

// `error` is a cudaError_t. `operation` ("cudaMalloc of 4096 bytes") opens the message.
//   RESOURCE_EXHAUSTED   device memory does not suffice
//   UNAVAILABLE          no device, no driver, or a driver too old for the runtime
//   FAILED_PRECONDITION  the device cannot run this build's kernels
//   INVALID_ARGUMENT     arguments or launch configuration the device refuses
//   INTERNAL             anything else; after a failed kernel every later call fails too
absl::Status CudaStatus(int error, const char* operation);

// `status` is a cublasStatus_t.
absl::Status CublasStatus(int status, const char* operation);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_KERNELS_CUDA_STATUS_H_
