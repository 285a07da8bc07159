// Makes writes durable soon after they were made.
#ifndef ATTIC_SERVER_SESSION_DISK_SYNC_H_
#define ATTIC_SERVER_SESSION_DISK_SYNC_H_

#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/storage/durable_store.h"

namespace attic {

// One thread that syncs while there is something to sync, all writes since the last time at once.
// Thread-safe.
class DiskSync {
 public:
  // Waits `interval` after a sync before the next.
  DiskSync(std::shared_ptr<DurableStore> store, absl::Duration interval);
  // Syncs once more when something was written.
  ~DiskSync();
  DiskSync(const DiskSync&) = delete;
  DiskSync& operator=(const DiskSync&) = delete;

  // Something was written.
  void Notify();

 private:
  void Run();

  const std::shared_ptr<DurableStore> store_;
  const absl::Duration interval_;
  Mutex mutex_;
  CondVar changed_;
  bool written_ ATTIC_GUARDED_BY(mutex_) = false;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_DISK_SYNC_H_
