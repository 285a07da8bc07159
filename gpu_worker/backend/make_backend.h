// Chooses a backend by name.
#ifndef ATTIC_GPU_WORKER_BACKEND_MAKE_BACKEND_H_
#define ATTIC_GPU_WORKER_BACKEND_MAKE_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "gpu_worker/backend/backend.h"

namespace attic::worker {

// "cpu" or "cuda". INVALID_ARGUMENT for another name; UNIMPLEMENTED when the build has no CUDA;
// UNAVAILABLE when the machine has no usable GPU. `pool` must outlive the backend.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& name, ThreadPool& pool);

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_BACKEND_MAKE_BACKEND_H_
