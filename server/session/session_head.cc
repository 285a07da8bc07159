#include "server/session/session_head.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
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
  ATTIC_ASSIGN_OR_RETURN(auto index, index_->Fork(position));
  std::shared_ptr<SessionHead> fork(new SessionHead(std::move(index), budget_));
  const MemoryUse use = fork->index_->memory_use();
  const uint64_t shareable = use.total() - use.tail_bytes - use.vectors_bytes;

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
  const MemoryUse use = index_->memory_use();
  const uint64_t held = kEmptyHeadBytes + use.total() - use.vectors_bytes;
  const uint64_t shared = shared_bytes();
  own_.Set(held > shared ? held - shared : 0);
}

uint64_t SessionHead::shared_bytes() const {
  uint64_t sum = 0;
  for (const SharedBytes& shared : shared_) sum += shared.bytes;
  return sum;
}

void SessionHead::AttachDisk(std::shared_ptr<LayerDisk> disk, uint32_t kv_head,
                             size_t disk_segments) {
  ATTIC_CHECK(disk_ == nullptr && disk != nullptr);
  disk_ = std::move(disk);
  kv_head_ = kv_head;
  disk_segments_ = disk_segments;
  learnt_version_on_disk_ = index_->learnt_version();
}

void SessionHead::CutDisk(size_t disk_segments) {
  ATTIC_CHECK(disk_segments <= disk_segments_);
  disk_segments_ = disk_segments;
}

absl::StatusOr<bool> SessionHead::BuildNext() {
  ATTIC_ASSIGN_OR_RETURN(const bool built, index_->BuildNext());
  UpdateCharge();
  if (disk_ == nullptr || disk_closed_) return built;
  const size_t before = disk_segments();
  ATTIC_RETURN_IF_ERROR(WriteToDisk());
  return built || disk_segments() != before;
}

absl::Status SessionHead::WriteToDisk() {
  const Turn::Holder turn = HoldDisk();
  if (disk_closed_) return absl::OkStatus();
  size_t disk_segments = this->disk_segments();
  const absl::Status written = disk_->WriteSegments(kv_head_, *index_, disk_segments);
  disk_segments_ = disk_segments;
  ATTIC_RETURN_IF_ERROR(written);
  const uint64_t learnt = index_->learnt_version();
  if (learnt == learnt_version_on_disk_) return absl::OkStatus();
  ATTIC_RETURN_IF_ERROR(disk_->store()->PutHeadState(disk_->head(kv_head_), index_->LearntState()));
  learnt_version_on_disk_ = learnt;
  return absl::OkStatus();
}

int64_t SessionHead::pending_segments() const {
  const int64_t to_build = index_->pending_segments();
  if (disk_ == nullptr || disk_closed_) return to_build;
  const auto built = static_cast<int64_t>(index_->Segments().size());
  return to_build + std::max<int64_t>(0, built - static_cast<int64_t>(disk_segments()));
}

}  // namespace attic
