// The disk of a store: its data directory and the threads that work on it.
#ifndef ATTIC_SERVER_SESSION_STORE_DISK_H_
#define ATTIC_SERVER_SESSION_STORE_DISK_H_

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "base/thread_pool.h"
#include "server/session/catalogue.h"
#include "server/session/disk_sync.h"
#include "server/session/session.h"
#include "server/session/vector_tier.h"
#include "server/storage/durable_store.h"

namespace attic {

struct StoreDiskOptions {
  DurableStoreOptions store;
  VectorTierOptions tier;
  absl::Duration sync_interval = absl::Milliseconds(5);  // between syncs of what is appended
};

// Thread-safe.
class StoreDisk {
 public:
  // Opens the directory; errors of DurableStore::Open. `catalogue` and `budget` must outlive it.
  static absl::StatusOr<std::unique_ptr<StoreDisk>> Open(
      const StoreDiskOptions& options, const std::shared_ptr<MemoryBudget>& budget,
      Catalogue& catalogue);
  // Stops all threads; what was written is durable then.
  ~StoreDisk();
  StoreDisk(const StoreDisk&) = delete;
  StoreDisk& operator=(const StoreDisk&) = delete;

  const std::shared_ptr<DurableStore>& store() const { return store_; }
  // To be called when something was written that is not durable yet.
  void NotifyWrite() { sync_.Notify(); }

  // Puts the sessions of the directory into the catalogue and starts to read them, one after the
  // other, on `pool`. `recovered` is called for each that was read, or was until damage was
  // met. To be called once.
  absl::Status StartRecovery(const SessionResources& resources, std::shared_ptr<ThreadPool> pool,
                             std::function<void(const std::shared_ptr<Session>&)> recovered);
  // Stops reading sessions; `recovered` is not called any more when it returns.
  void StopRecovery();
  // Returns when no session is being read any more; DEADLINE_EXCEEDED.
  absl::Status WaitForRecovery(absl::Time deadline);

  // See VectorTier.
  absl::Status MakeRoom(uint64_t bytes, absl::Time deadline) {
    return tier_.MakeRoom(bytes, deadline);
  }

  // Adds what concerns the disk.
  void Describe(StoreStatus& status) const;

 private:
  StoreDisk(const StoreDiskOptions& options, std::shared_ptr<DurableStore> store,
            const std::shared_ptr<MemoryBudget>& budget, Catalogue& catalogue);

  struct ToRecover {
    SessionRecord record;
    std::shared_ptr<Session> session;
  };
  void Recover(std::vector<ToRecover> sessions, const SessionResources& resources,
               const std::shared_ptr<ThreadPool>& pool,
               const std::function<void(const std::shared_ptr<Session>&)>& recovered);
  void NoteDamage(DamageReport report);

  const std::shared_ptr<DurableStore> store_;
  Catalogue& catalogue_;
  DiskSync sync_;
  VectorTier tier_;
  std::atomic<bool> stopping_{false};
  mutable Mutex mutex_;
  CondVar changed_;
  size_t recovering_ ATTIC_GUARDED_BY(mutex_) = 0;
  std::vector<DamageReport> damage_ ATTIC_GUARDED_BY(mutex_);
  std::thread recovery_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_STORE_DISK_H_
