#include "server/service/executor.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attic {

Executor::~Executor() {
  MutexLock lock(mutex_);
  while (unfinished_ > 0) idle_.Wait(mutex_);
}

absl::Status Executor::Schedule(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (queued_ >= queued_max_) {
      ++refused_;
      return absl::ResourceExhaustedError(
          absl::StrCat("requests_queued_max: ", queued_max_, " requests wait for a thread"));
    }
    ++queued_;
    ++unfinished_;
  }
  pool_->Schedule([this, task = std::move(task)] { Run(task); });
  return absl::OkStatus();
}

Executor::Load Executor::load() {
  MutexLock lock(mutex_);
  return {.queued = queued_, .queued_max = queued_max_, .refused = refused_};
}

void Executor::Run(const std::function<void()>& task) {
  {
    MutexLock lock(mutex_);
    --queued_;
  }
  task();
  MutexLock lock(mutex_);
  if (--unfinished_ == 0) idle_.NotifyAll();
}

}  // namespace attic
