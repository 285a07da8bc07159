// One kv head of one layer of one session: its index and the memory it is charged for.
#ifndef ATTIC_SERVER_SESSION_SESSION_HEAD_H_
#define ATTIC_SERVER_SESSION_SESSION_HEAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "server/index/head_index.h"
#include "server/session/build_scheduler.h"

namespace attic {

// Thread-safe.
class SessionHead : public BuildTarget {
 public:
  // RESOURCE_EXHAUSTED when the budget has no room for an empty head.
  static absl::StatusOr<std::shared_ptr<SessionHead>> Create(
      const HeadShape& shape, const IndexOptions& options,
      const std::shared_ptr<MemoryBudget>& budget);

  HeadIndex& index() { return *index_; }
  const HeadIndex& index() const { return *index_; }

  // A new head holding [0, position), sharing segments; position <= token_count(). What is shared
  // is charged once, until the last holder is gone.
  absl::StatusOr<std::shared_ptr<SessionHead>> Fork(int64_t position);

  // Sets the charge to what the index holds now; to be called after every change.
  void UpdateCharge();

  absl::StatusOr<bool> BuildNext() override;
  int64_t pending_segments() const override { return index_->pending_segments(); }

 private:
  SessionHead(std::unique_ptr<HeadIndex> index, std::shared_ptr<MemoryBudget> budget)
      : budget_(std::move(budget)), index_(std::move(index)), own_(budget_) {}

  struct SharedBytes {
    std::shared_ptr<MemoryCharge> charge;
    uint64_t bytes;
  };

  void UpdateChargeLocked() ATTIC_REQUIRES(charge_mutex_);
  uint64_t shared_bytes() const ATTIC_REQUIRES(charge_mutex_);

  const std::shared_ptr<MemoryBudget> budget_;
  const std::unique_ptr<HeadIndex> index_;
  Mutex charge_mutex_;
  MemoryCharge own_;
  std::vector<SharedBytes> shared_ ATTIC_GUARDED_BY(charge_mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_HEAD_H_
