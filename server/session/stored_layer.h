// One layer of one session: its kv heads, filled together and read together.
#ifndef ATTIC_SERVER_SESSION_STORED_LAYER_H_
#define ATTIC_SERVER_SESSION_STORED_LAYER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "server/index/head_index.h"
#include "server/session/build_scheduler.h"
#include "server/session/session_head.h"

namespace attic {

// The heads of a layer at one moment. Each holds at least `watermark` tokens and all agree on them.
struct LayerSnapshot {
  int64_t watermark = 0;
  std::vector<std::shared_ptr<const HeadSnapshot>> heads;
};

// Thread-safe. Appends, truncations and forks of one layer take turns; snapshots wait for none of
// them but truncations.
class StoredLayer {
 public:
  // RESOURCE_EXHAUSTED when the budget has no room for the heads.
  static absl::StatusOr<std::unique_ptr<StoredLayer>> Create(
      const Fingerprint& fingerprint, uint32_t layer, const IndexOptions& options,
      const std::shared_ptr<MemoryBudget>& budget);

  uint32_t layer() const { return layer_; }

  // Appends a validated batch and returns the watermark. Positions already held are compared:
  // ALREADY_EXISTS when their content differs. OUT_OF_RANGE for a gap, RESOURCE_EXHAUSTED when
  // memory is short. On error nothing changed.
  absl::StatusOr<int64_t> Append(const AppendBatch& batch);

  // Queues the heads that have segments to build.
  void ScheduleBuilds(BuildScheduler& scheduler);

  LayerSnapshot Snapshot() const;
  int64_t watermark() const;

  // Forgets positions >= position; nothing when there are none.
  void Truncate(int64_t position);

  // A layer holding [0, position). OUT_OF_RANGE when position is beyond the watermark.
  absl::StatusOr<std::unique_ptr<StoredLayer>> Fork(int64_t position);

  LayerDescription Describe() const;
  // Appends the plan of every head, in order.
  void AppendPlans(std::vector<HeadPlan>& plans) const;
  MemoryUse memory_use() const;
  int64_t pending_segments() const;       // of all heads
  int64_t most_pending_segments() const;  // of the head that has most

 private:
  StoredLayer(const Fingerprint& fingerprint, uint32_t layer, std::shared_ptr<MemoryBudget> budget)
      : fingerprint_(fingerprint), layer_(layer), budget_(std::move(budget)) {}

  absl::Status CompareHeld(const AppendBatch& batch, size_t tokens) const;
  void AppendToHeads(const AppendBatch& batch, size_t skip);

  const Fingerprint fingerprint_;
  const uint32_t layer_;
  const std::shared_ptr<MemoryBudget> budget_;
  // Constant after construction.
  std::vector<std::shared_ptr<SessionHead>> heads_;

  Mutex change_mutex_;             // held by appends, truncations and forks; taken first
  mutable Mutex published_mutex_;  // held for moments, and while a truncation runs
  int64_t watermark_ ATTIC_GUARDED_BY(published_mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_STORED_LAYER_H_
