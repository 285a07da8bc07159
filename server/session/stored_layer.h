// One layer of one session: its kv heads, filled together and read together.
#ifndef ATTIC_SERVER_SESSION_STORED_LAYER_H_
#define ATTIC_SERVER_SESSION_STORED_LAYER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "base/turn.h"
#include "server/index/head_index.h"
#include "server/session/build_scheduler.h"
#include "server/session/layer_disk.h"
#include "server/session/session_head.h"

namespace attic {

// The heads of a layer at one moment. Each holds at least `watermark` tokens and all agree on them.
struct LayerSnapshot {
  int64_t watermark = 0;
  std::vector<std::shared_ptr<const HeadSnapshot>> heads;
};

// Keys and values of consecutive positions of a layer, as an AppendBatch has them.
struct LayerRows {
  int64_t begin_position = 0;
  size_t count = 0;
  std::vector<std::byte> keys;    // (count, kv_heads, head_dim)
  std::vector<std::byte> values;  // (count, kv_heads, value_dim)
};

// Thread-safe. Appends, truncations and forks of one layer take turns; snapshots wait for none of
// them but, for moments, truncations.
class StoredLayer {
 public:
  // RESOURCE_EXHAUSTED when the budget has no room for the heads.
  static absl::StatusOr<std::unique_ptr<StoredLayer>> Create(
      const Fingerprint& fingerprint, uint32_t layer, const IndexOptions& options,
      const std::shared_ptr<MemoryBudget>& budget);

  uint32_t layer() const { return layer_; }

  // What is appended and built from now on goes to `disk`, too, where the first disk_segments[h]
  // segments of head h are already. To be called once, before the layer is used.
  void AttachDisk(std::shared_ptr<LayerDisk> disk, const std::vector<size_t>& disk_segments);
  LayerDisk* disk() const { return disk_.get(); }  // null in memory

  // Appends a validated batch and returns the watermarks. Positions already held are compared:
  // ALREADY_EXISTS when their content differs. OUT_OF_RANGE for a gap, RESOURCE_EXHAUSTED when
  // memory or the disk is short, UNAVAILABLE when the disk fails, DEADLINE_EXCEEDED when others had
  // the layer. On error nothing changed.
  absl::StatusOr<AppendAck> Append(const AppendBatch& batch, absl::Time deadline);

  // Adds what was read from disk, in order: segments of a head (see HeadIndex::AddSegment), then
  // what the heads had learnt, then rows behind the segments.
  SessionHead& head(uint32_t kv_head) { return *heads_[kv_head]; }
  size_t kv_heads() const { return heads_.size(); }
  // Rows that some heads hold already, as far as they do. Publishes nothing.
  void RecoverRows(const RowsRecord& rows);
  // Every head holds [0, position); what some hold beyond is forgotten.
  absl::Status FinishRecovery(int64_t position);
  // Before that, as far as all heads hold segments.
  void PublishRecovered();

  // Queues the heads that have segments to build.
  void ScheduleBuilds(BuildScheduler& scheduler);

  LayerSnapshot Snapshot() const;
  int64_t watermark() const;

  // While it is held nobody else appends to, cuts, forks or writes the layer.
  struct Exclusive {
    Turn::Holder change;
    std::vector<Turn::Holder> disks;
  };
  Exclusive Hold();

  // The following are for who holds the layer.

  // Brings to memory what Truncate or Fork at `position` will read, so that neither waits for a
  // disk while snapshots wait. Errors as of HeadSnapshot::Attend.
  absl::Status LoadCut(int64_t position);
  // What the disk must know to cut the layer at `position`; `rows` holds what the cut refers to.
  // Errors as of HeadSnapshot::Attend.
  absl::StatusOr<LayerCut> PrepareCut(int64_t position, std::vector<LayerRows>& rows);
  // Forgets positions >= position; nothing when there are none. On error what could not be
  // forgotten is hidden, and forgotten with the next append.
  absl::Status Truncate(int64_t position);
  // What the disk must know of a fork at `position`. RESOURCE_EXHAUSTED when too many rows are not
  // in segments on disk.
  absl::StatusOr<LayerState> PrepareFork(int64_t position, std::vector<LayerRows>& rows);
  // A layer holding [0, position). OUT_OF_RANGE when position is beyond the watermark.
  absl::StatusOr<std::unique_ptr<StoredLayer>> Fork(int64_t position);
  // Nothing is appended or written any more.
  void Close();

  LayerDescription Describe() const;
  // Appends the plan of every head, in order.
  void AppendPlans(std::vector<HeadPlan>& plans) const;
  MemoryUse memory_use() const;
  int64_t pending_segments() const;       // of all heads
  int64_t most_pending_segments() const;  // of the head that has most

 private:
  StoredLayer(const Fingerprint& fingerprint, uint32_t layer, const IndexOptions& options,
              std::shared_ptr<MemoryBudget> budget)
      : fingerprint_(fingerprint), layer_(layer), options_(options), budget_(std::move(budget)) {}

  absl::Status CompareHeld(const AppendBatch& batch, size_t tokens) const;
  absl::Status ForgetHidden();
  void AppendToHeads(const RowsRecord& rows);
  absl::Status CopyRows(PositionRange range, std::vector<LayerRows>& rows) const;
  size_t key_row_bytes() const;    // of one head
  size_t value_row_bytes() const;  // likewise
  void Publish(int64_t watermark);

  const Fingerprint fingerprint_;
  const uint32_t layer_;
  const IndexOptions options_;
  const std::shared_ptr<MemoryBudget> budget_;
  // Constant once the layer is used.
  std::vector<std::shared_ptr<SessionHead>> heads_;
  std::shared_ptr<LayerDisk> disk_;

  Turn change_turn_;               // of appends, truncations and forks
  mutable Mutex published_mutex_;  // held for moments
  int64_t watermark_ ATTIC_GUARDED_BY(published_mutex_) = 0;
  bool closed_ ATTIC_GUARDED_BY(published_mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_STORED_LAYER_H_
