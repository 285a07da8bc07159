#include "server/service/executor.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attic {

absl::Status Executor::Schedule(std::function<void()> task) {
  if (queued_.fetch_add(1) >= queued_max_) {
    queued_.fetch_sub(1);
    return absl::ResourceExhaustedError(
        absl::StrCat("requests_queued_max: ", queued_max_, " requests wait for a thread"));
  }
  pool_.Schedule([this, task = std::move(task)] {
    queued_.fetch_sub(1);
    task();
  });
  return absl::OkStatus();
}

}  // namespace attic
