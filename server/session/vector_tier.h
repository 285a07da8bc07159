// Which vectors are in memory when not all of them fit.
#ifndef ATTIC_SERVER_SESSION_VECTOR_TIER_H_
#define ATTIC_SERVER_SESSION_VECTOR_TIER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "server/index/segment/segment.h"
#include "server/storage/durable_store.h"

namespace attic {

struct VectorTierOptions {
  // Of the memory budget: what vectors are evicted above, and read back into memory below.
  double high_watermark = 0.9;
  double low_watermark = 0.75;
  uint64_t cache_bytes_min = 16u << 20;
  absl::Duration interval = absl::Milliseconds(200);
};

// While all vectors fit below the high watermark they are in memory, segment by segment. When they
// do not, those that are on disk leave it, and what memory there is serves as a cache of single
// clusters: so it holds what queries read, whatever segments that is in. Segments of sessions in
// memory are written to files for that, which do not outlive the process. Sums and codes stay in
// memory always. Thread-safe.
class VectorTier {
 public:
  // `segments` lists all of the store, some of them perhaps more than once.
  VectorTier(std::shared_ptr<DurableStore> disk, std::shared_ptr<MemoryBudget> budget,
             std::function<std::vector<std::shared_ptr<const Segment>>()> segments,
             const VectorTierOptions& options);
  ~VectorTier();
  VectorTier(const VectorTier&) = delete;
  VectorTier& operator=(const VectorTier&) = delete;

  // Returns when `bytes` more fit into the budget, or nothing more can be evicted.
  // DEADLINE_EXCEEDED when that takes longer.
  absl::Status MakeRoom(uint64_t bytes, absl::Time deadline);

 private:
  struct Inventory;

  void Run();
  // One look at everything; `needed` bytes are waited for. True when the next should follow at
  // once.
  bool Balance(uint64_t needed);
  Inventory TakeInventory() const;
  void SetCacheBytes(uint64_t bytes);
  bool LoadSome(const Inventory& inventory);
  uint64_t SpillDownTo(uint64_t bytes_max, const Inventory& inventory);
  uint64_t Spill(const Segment& segment);
  uint64_t Share(double share) const {
    return static_cast<uint64_t>(share * static_cast<double>(budget_->bytes_max()));
  }
  bool stopping() const {
    MutexLock lock(mutex_);
    return stopping_;
  }

  const std::shared_ptr<DurableStore> disk_;
  const std::shared_ptr<MemoryBudget> budget_;
  const std::function<std::vector<std::shared_ptr<const Segment>>()> segments_;
  const VectorTierOptions options_;
  MemoryCharge cache_charge_;
  uint64_t cache_bytes_ = 0;  // touched by the thread alone
  bool fits_ = true;          // likewise

  mutable Mutex mutex_;
  CondVar wake_;
  CondVar balanced_;
  uint64_t needed_ ATTIC_GUARDED_BY(mutex_) = 0;
  uint64_t rounds_ ATTIC_GUARDED_BY(mutex_) = 0;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_VECTOR_TIER_H_
