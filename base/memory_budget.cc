#include "base/memory_budget.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace attic {
namespace {

uint64_t MachineBytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGE_SIZE);
  ATTIC_CHECK(pages > 0 && page_bytes > 0);
  return static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
}

}  // namespace

MemoryBudget::MemoryBudget(uint64_t bytes_max)
    : bytes_max_(bytes_max > 0 ? bytes_max : MachineBytes() / 4 * 3), limit_("memory_bytes_max") {}

MemoryBudget::MemoryBudget(uint64_t bytes_max, const char* limit,
                           std::shared_ptr<MemoryBudget> whole)
    : bytes_max_(bytes_max), limit_(limit), whole_(std::move(whole)) {}

absl::Status MemoryBudget::Reserve(uint64_t bytes) {
  MutexLock lock(mutex_);
  if (used_bytes_ > bytes_max_ || bytes > bytes_max_ - used_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(limit_, ": ", used_bytes_, " of ", bytes_max_,
                                                     " bytes are used and ", bytes,
                                                     " more are needed"));
  }
  // The lock of a part is taken before that of the whole, never the other way.
  if (whole_ != nullptr) ATTIC_RETURN_IF_ERROR(whole_->Reserve(bytes));
  used_bytes_ += bytes;
  return absl::OkStatus();
}

void MemoryBudget::Adjust(uint64_t held_bytes, uint64_t actual_bytes) {
  MutexLock lock(mutex_);
  ATTIC_CHECK(used_bytes_ >= held_bytes);
  used_bytes_ = used_bytes_ - held_bytes + actual_bytes;
  if (whole_ != nullptr) whole_->Adjust(held_bytes, actual_bytes);
}

uint64_t MemoryBudget::used_bytes() const {
  MutexLock lock(mutex_);
  return used_bytes_;
}

absl::Status MemoryCharge::Reserve(uint64_t bytes) {
  MutexLock lock(mutex_);
  ATTIC_RETURN_IF_ERROR(budget_->Reserve(bytes));
  bytes_ += bytes;
  return absl::OkStatus();
}

void MemoryCharge::Set(uint64_t bytes) {
  MutexLock lock(mutex_);
  budget_->Adjust(bytes_, bytes);
  bytes_ = bytes;
}

}  // namespace attic
