// What the store may hold in memory, and who holds how much of it.
#ifndef ATTIC_BASE_MEMORY_BUDGET_H_
#define ATTIC_BASE_MEMORY_BUDGET_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "base/mutex.h"

namespace attic {

// Counts bytes against limits.memory_bytes_max. Thread-safe.
class MemoryBudget {
 public:
  // bytes_max == 0: three quarters of the machine's memory.
  explicit MemoryBudget(uint64_t bytes_max);
  // A part of another budget: what is counted here is counted there too. `limit` names bytes_max in
  // errors, and lives for ever.
  MemoryBudget(uint64_t bytes_max, const char* limit, std::shared_ptr<MemoryBudget> whole);

  // RESOURCE_EXHAUSTED naming the limit, such as memory_bytes_max, when `bytes` more would be over
  // it; then nothing is counted.
  absl::Status Reserve(uint64_t bytes);
  // Replaces a count that is already held; may go over the limit, because the memory is in use.
  void Adjust(uint64_t held_bytes, uint64_t actual_bytes);

  uint64_t bytes_max() const { return bytes_max_; }
  uint64_t used_bytes() const;

 private:
  const uint64_t bytes_max_;
  const char* const limit_;
  const std::shared_ptr<MemoryBudget> whole_;  // null: this is all
  mutable Mutex mutex_;
  uint64_t used_bytes_ ATTIC_GUARDED_BY(mutex_) = 0;
};

// Bytes counted against a budget for as long as the object lives. Segments shared by forks are held
// by one charge that every holder shares. Thread-safe.
class MemoryCharge {
 public:
  explicit MemoryCharge(std::shared_ptr<MemoryBudget> budget) : budget_(std::move(budget)) {}
  ~MemoryCharge() { Set(0); }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

  // Adds `bytes`, or fails like MemoryBudget::Reserve.
  absl::Status Reserve(uint64_t bytes);
  // Corrects the charge to what is really held.
  void Set(uint64_t bytes);

 private:
  const std::shared_ptr<MemoryBudget> budget_;
  Mutex mutex_;
  uint64_t bytes_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_BASE_MEMORY_BUDGET_H_
