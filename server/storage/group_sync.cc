#include "server/storage/group_sync.h"

namespace attic {

absl::Status GroupSync::Sync() {
  mutex_.Lock();
  const uint64_t run_needed = runs_begun_ + 1;  // the one under way began too early
  while (runs_done_ < run_needed) {
    if (running_) {
      finished_.Wait(mutex_);
      continue;
    }
    running_ = true;
    ++runs_begun_;
    mutex_.Unlock();
    absl::Status status = sync_();
    mutex_.Lock();
    running_ = false;
    runs_done_ = runs_begun_;
    last_ = std::move(status);
    finished_.NotifyAll();
  }
  const absl::Status status = last_;
  mutex_.Unlock();
  return status;
}

}  // namespace attic
