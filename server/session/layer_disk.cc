#include "server/session/layer_disk.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace attic {

LayerDisk::LayerDisk(std::shared_ptr<DurableStore> store, uint64_t session_key, uint32_t layer,
                     size_t kv_heads, std::function<void()> on_write)
    : store_(std::move(store)),
      session_key_(session_key),
      layer_(layer),
      on_write_(std::move(on_write)),
      segments_end_(kv_heads, 0) {}

absl::Status LayerDisk::AppendRows(const RowsRecord& rows) {
  ATTIC_ASSIGN_OR_RETURN(const uint64_t number, store_->AppendRows(session_key_, layer_, rows));
  {
    MutexLock lock(mutex_);
    writes_.push_back({number, rows.begin_position + static_cast<int64_t>(rows.count)});
  }
  on_write_();
  return absl::OkStatus();
}

absl::Status LayerDisk::WriteSegments(uint32_t kv_head, const HeadIndex& index,
                                      size_t& disk_segments) {
  const std::vector<std::shared_ptr<const Segment>> segments = index.Segments();
  while (disk_segments < segments.size()) {
    const Segment& segment = *segments[disk_segments];
    ATTIC_ASSIGN_OR_RETURN(const auto arrays, segment.vectors->ArraysOrRead());
    std::shared_ptr<const VectorSource> source;
    ATTIC_RETURN_IF_ERROR(store_->AddSegment(head(kv_head), segment, *arrays, &source).status());
    segment.vectors->AttachSource(std::move(source));
    ++disk_segments;
    NoteSegments(kv_head, segment.end_position());
    on_write_();
  }
  int64_t held_by_all;
  {
    MutexLock lock(mutex_);
    held_by_all = *std::min_element(segments_end_.begin(), segments_end_.end());
    if (held_by_all <= rows_begin_) return absl::OkStatus();
    // First, so that a truncation that comes now writes the rows again.
    rows_begin_ = held_by_all;
  }
  return store_->DropRows(session_key_, layer_, held_by_all);
}

void LayerDisk::NoteSegments(uint32_t kv_head, int64_t end_position) {
  MutexLock lock(mutex_);
  segments_end_[kv_head] = end_position;
}

void LayerDisk::NoteDurable(int64_t watermark) {
  MutexLock lock(mutex_);
  writes_.clear();
  durable_watermark_ = watermark;
  rows_begin_ = *std::min_element(segments_end_.begin(), segments_end_.end());
}

int64_t LayerDisk::rows_begin() const {
  MutexLock lock(mutex_);
  return rows_begin_;
}

int64_t LayerDisk::durable_watermark() const {
  const uint64_t durable = store_->durable_write();
  MutexLock lock(mutex_);
  while (!writes_.empty() && writes_.front().number <= durable) {
    durable_watermark_ = writes_.front().end_position;
    writes_.pop_front();
  }
  return durable_watermark_;
}

}  // namespace attic
