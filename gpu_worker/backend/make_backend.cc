#include "gpu_worker/backend/make_backend.h"

#include "absl/strings/str_cat.h"

#ifdef ATTIC_WITH_CUDA
#include "gpu_worker/backend/cuda_backend.h"
#endif

namespace attic::worker {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const std::string& name, ThreadPool& pool) {
  if (name == "cpu") return MakeCpuBackend(pool);
  if (name == "cuda") {
#ifdef ATTIC_WITH_CUDA
    return MakeCudaBackend(pool);
#else
    return absl::UnimplementedError("backend: this build has no CUDA backend");
#endif
  }
  return absl::InvalidArgumentError(
      absl::StrCat("backend: \"", name, "\" is neither \"cpu\" nor \"cuda\""));
}

}  // namespace attic::worker
