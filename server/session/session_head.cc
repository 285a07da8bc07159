#include "server/session/session_head.h"

#include <utility>

#include "base/status_macros.h"

namespace attic {
namespace {

// Objects, locks and small vectors of a head that holds no token yet.
constexpr uint64_t kEmptyHeadBytes = 2048;

}  // namespace

absl::StatusOr<std::shared_ptr<SessionHead>> SessionHead::Create(
    const HeadShape& shape, const IndexOptions& options,
    const std::shared_ptr<MemoryBudget>& budget) {
  MemoryCharge room(budget);
  ATTIC_RETURN_IF_ERROR(room.Reserve(kEmptyHeadBytes));
  std::shared_ptr<SessionHead> head(new SessionHead(HeadIndex::Create(shape, options), budget));
  head->UpdateCharge();
  return head;
}

absl::StatusOr<std::shared_ptr<SessionHead>> SessionHead::Fork(int64_t position) {
  // The fork copies at most the tail; everything else is shared.
  MemoryCharge room(budget_);
  ATTIC_RETURN_IF_ERROR(room.Reserve(kEmptyHeadBytes + index_->memory_use().tail_bytes));
  std::shared_ptr<SessionHead> fork(new SessionHead(index_->Fork(position), budget_));
  const MemoryUse use = fork->index_->memory_use();
  const uint64_t shareable = use.total() - use.tail_bytes;

  std::vector<SharedBytes> shared;
  {
    MutexLock lock(charge_mutex_);
    const uint64_t already_shared = shared_bytes();
    if (shareable > already_shared) {
      const uint64_t bytes = shareable - already_shared;
      auto charge = std::make_shared<MemoryCharge>(budget_);
      charge->Set(bytes);
      shared_.push_back({std::move(charge), bytes});
      UpdateChargeLocked();
    }
    shared = shared_;
  }
  MutexLock lock(fork->charge_mutex_);
  fork->shared_ = std::move(shared);
  fork->UpdateChargeLocked();
  return fork;
}

void SessionHead::UpdateCharge() {
  MutexLock lock(charge_mutex_);
  UpdateChargeLocked();
}

void SessionHead::UpdateChargeLocked() {
  const uint64_t held = kEmptyHeadBytes + index_->memory_use().total();
  const uint64_t shared = shared_bytes();
  own_.Set(held > shared ? held - shared : 0);
}

uint64_t SessionHead::shared_bytes() const {
  uint64_t sum = 0;
  for (const SharedBytes& shared : shared_) sum += shared.bytes;
  return sum;
}

absl::StatusOr<bool> SessionHead::BuildNext() {
  absl::StatusOr<bool> built = index_->BuildNext();
  UpdateCharge();
  return built;
}

}  // namespace attic
