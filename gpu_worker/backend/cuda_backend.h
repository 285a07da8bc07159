// The CUDA backend: weights in device memory and products by cuBLAS in float32; sink and window in
// device memory and attention by gpu_worker/kernels. Activations cross to the host and back with
// every product, as the interface has host pointers, and many-token attention does not use the
// matrix units: made for decoding, right but slow for long prefills.
#ifndef ATTIC_GPU_WORKER_BACKEND_CUDA_BACKEND_H_
#define ATTIC_GPU_WORKER_BACKEND_CUDA_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "gpu_worker/backend/backend.h"

namespace attic::worker {

// UNAVAILABLE when there is no usable device or driver. The pool is not used: the device works
// beside the host's threads by itself.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(ThreadPool& pool);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_BACKEND_CUDA_BACKEND_H_
