// One sync for all who ask for one at the same time.
#ifndef ATTIC_SERVER_STORAGE_GROUP_SYNC_H_
#define ATTIC_SERVER_STORAGE_GROUP_SYNC_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "base/mutex.h"

namespace attic {

// Thread-safe.
class GroupSync {
 public:
  // `sync` is called by one thread at a time.
  explicit GroupSync(std::function<absl::Status()> sync) : sync_(std::move(sync)) {}

  // Returns what a call of `sync` returned that began after this one.
  absl::Status Sync() ATTIC_EXCLUDES(mutex_);

 private:
  const std::function<absl::Status()> sync_;
  Mutex mutex_;
  CondVar finished_;
  bool running_ ATTIC_GUARDED_BY(mutex_) = false;
  uint64_t runs_begun_ ATTIC_GUARDED_BY(mutex_) = 0;
  uint64_t runs_done_ ATTIC_GUARDED_BY(mutex_) = 0;
  // Of the last run: it covers what those before it did.
  absl::Status last_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_GROUP_SYNC_H_
