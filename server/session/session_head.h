// One kv head of one layer of one session: its index, the memory it is charged for, and what of it
// is on disk.
#ifndef ATTIC_SERVER_SESSION_SESSION_HEAD_H_
#define ATTIC_SERVER_SESSION_SESSION_HEAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "base/turn.h"
#include "server/index/head_index.h"
#include "server/session/build_scheduler.h"
#include "server/session/layer_disk.h"

namespace attic {

// Thread-safe. Vectors of segments are charged by themselves (SegmentVectors), all else here.
class SessionHead : public BuildTarget {
 public:
  // RESOURCE_EXHAUSTED when the budget has no room for an empty head.
  static absl::StatusOr<std::shared_ptr<SessionHead>> Create(
      const HeadShape& shape, const IndexOptions& options,
      const std::shared_ptr<MemoryBudget>& budget);

  HeadIndex& index() { return *index_; }
  const HeadIndex& index() const { return *index_; }

  // A new head holding [0, position), sharing segments; position <= token_count(). What is shared
  // is charged once, until the last holder is gone. Errors as of HeadIndex::Fork.
  absl::StatusOr<std::shared_ptr<SessionHead>> Fork(int64_t position);

  // From now on segments that are built are written to disk, where the first `disk_segments` are
  // already. To be called once, before anything is built.
  void AttachDisk(std::shared_ptr<LayerDisk> disk, uint32_t kv_head, size_t disk_segments);

  // While it is held, nothing of the head is written to disk.
  Turn::Holder HoldDisk() { return disk_turn_.Take(); }
  // Both for who holds the disk.
  size_t disk_segments() const { return disk_segments_.load(std::memory_order_relaxed); }
  void CutDisk(size_t disk_segments);
  // Nothing is written any more.
  void DetachDisk() { disk_closed_ = true; }

  // Sets the charge to what the index holds now; to be called after every change.
  void UpdateCharge();

  // Builds a segment, if one is due, and writes what is not on disk.
  absl::StatusOr<bool> BuildNext() override;
  // Segments to be built, and built ones to be written.
  int64_t pending_segments() const override;

 private:
  SessionHead(std::unique_ptr<HeadIndex> index, std::shared_ptr<MemoryBudget> budget)
      : budget_(std::move(budget)), index_(std::move(index)), own_(budget_) {}

  struct SharedBytes {
    std::shared_ptr<MemoryCharge> charge;
    uint64_t bytes;
  };

  absl::Status WriteToDisk();
  void UpdateChargeLocked() ATTIC_REQUIRES(charge_mutex_);
  uint64_t shared_bytes() const ATTIC_REQUIRES(charge_mutex_);

  const std::shared_ptr<MemoryBudget> budget_;
  const std::unique_ptr<HeadIndex> index_;
  Mutex charge_mutex_;
  MemoryCharge own_;
  std::vector<SharedBytes> shared_ ATTIC_GUARDED_BY(charge_mutex_);

  std::shared_ptr<LayerDisk> disk_;  // null for sessions in memory
  uint32_t kv_head_ = 0;
  Turn disk_turn_;
  // Changed by who has the turn.
  std::atomic<size_t> disk_segments_{0};
  std::atomic<bool> disk_closed_{false};
  uint64_t learnt_version_on_disk_ = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_HEAD_H_
