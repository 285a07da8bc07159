#include "server/session/stored_layer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/index/segment/segment.h"
#include "server/session/head_rows.h"

namespace attic {
namespace {

constexpr uint64_t kForkRowsBytesMax = 1u << 30;  // of one layer
constexpr int64_t kRowsCopiedTogether = 4096;

}  // namespace

absl::StatusOr<std::unique_ptr<StoredLayer>> StoredLayer::Create(
    const Fingerprint& fingerprint, uint32_t layer, const IndexOptions& options,
    const std::shared_ptr<MemoryBudget>& budget) {
  const HeadShape shape = {.head_dim = fingerprint.head_dim,
                           .value_dim = fingerprint.value_dim,
                           .group = fingerprint.group(),
                           .element_type = fingerprint.element_type,
                           .logit_scale = fingerprint.logit_scale};
  std::unique_ptr<StoredLayer> created(new StoredLayer(fingerprint, layer, options, budget));
  for (uint32_t head = 0; head < fingerprint.kv_heads; ++head) {
    ATTIC_ASSIGN_OR_RETURN(auto added, SessionHead::Create(shape, options, budget));
    created->heads_.push_back(std::move(added));
  }
  return created;
}

void StoredLayer::AttachDisk(std::shared_ptr<LayerDisk> disk,
                             const std::vector<size_t>& disk_segments) {
  ATTIC_CHECK(disk_segments.size() == heads_.size());
  for (uint32_t head = 0; head < heads_.size(); ++head) {
    disk->NoteSegments(head, static_cast<int64_t>(disk_segments[head]) * options_.segment_tokens);
    heads_[head]->AttachDisk(disk, head, disk_segments[head]);
  }
  disk_ = std::move(disk);
}

absl::StatusOr<AppendAck> StoredLayer::Append(const AppendBatch& batch, absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const Turn::Holder turn, change_turn_.Take(deadline));
  const int64_t held = watermark();
  ATTIC_RETURN_IF_ERROR(ForgetHidden());
  if (batch.begin_position > held) {
    return absl::OutOfRangeError(absl::StrCat("begin_position: ", batch.begin_position,
                                              " leaves a gap above the watermark ", held));
  }
  const size_t overlap =
      std::min<size_t>(batch.count, static_cast<size_t>(held - batch.begin_position));
  ATTIC_RETURN_IF_ERROR(CompareHeld(batch, overlap));
  int64_t watermark = held;
  if (overlap < batch.count) {
    const RowsRecord rows{
        .begin_position = held,
        .count = batch.count - overlap,
        .keys = batch.keys.subspan(batch.keys.size() / batch.count * overlap),
        .values = batch.values.subspan(batch.values.size() / batch.count * overlap),
        .query_sample = batch.query_sample};
    MemoryCharge room(budget_);
    ATTIC_RETURN_IF_ERROR(room.Reserve(rows.keys.size() + rows.values.size()));
    // First, so that nothing is answered that a crash would take back.
    if (disk_ != nullptr) ATTIC_RETURN_IF_ERROR(disk_->AppendRows(rows));
    AppendToHeads(rows);
    watermark = held + static_cast<int64_t>(rows.count);
    Publish(watermark);
  }
  return AppendAck{.watermark = watermark,
                   .durable_watermark = disk_ == nullptr ? 0 : disk_->durable_watermark()};
}

void StoredLayer::Publish(int64_t watermark) {
  MutexLock published(published_mutex_);
  watermark_ = watermark;
}

// Refuses a closed layer, and makes up for truncations that failed.
absl::Status StoredLayer::ForgetHidden() {
  int64_t held;
  {
    MutexLock published(published_mutex_);
    if (closed_) return absl::NotFoundError("session_id: the session was closed");
    held = watermark_;
  }
  for (const auto& head : heads_) {
    if (head->index().token_count() > held) {
      ATTIC_RETURN_IF_ERROR(head->index().Truncate(held));
    }
  }
  return absl::OkStatus();
}

size_t StoredLayer::key_row_bytes() const {
  return fingerprint_.head_dim * ElementBytes(fingerprint_.element_type);
}

size_t StoredLayer::value_row_bytes() const {
  return fingerprint_.value_dim * ElementBytes(fingerprint_.element_type);
}

absl::Status StoredLayer::CompareHeld(const AppendBatch& batch, size_t tokens) const {
  if (tokens == 0) return absl::OkStatus();
  const size_t heads = heads_.size();
  const size_t key_bytes = batch.keys.size() / (batch.count * heads);
  const size_t value_bytes = batch.values.size() / (batch.count * heads);
  std::vector<std::byte> keys(tokens * key_bytes);
  std::vector<std::byte> values(tokens * value_bytes);
  for (size_t head = 0; head < heads; ++head) {
    const int64_t begin = batch.begin_position;
    ATTIC_RETURN_IF_ERROR(heads_[head]->index().Snapshot()->CopyRange(
        {begin, begin + static_cast<int64_t>(tokens)}, keys.data(), values.data()));
    for (size_t i = 0; i < tokens; ++i) {
      const int64_t position = begin + static_cast<int64_t>(i);
      const size_t row = i * heads + head;
      const std::byte* key = keys.data() + i * key_bytes;
      const std::byte* value = values.data() + i * value_bytes;
      if (std::memcmp(key, batch.keys.data() + row * key_bytes, key_bytes) != 0 ||
          std::memcmp(value, batch.values.data() + row * value_bytes, value_bytes) != 0) {
        return absl::AlreadyExistsError(
            absl::StrCat("begin_position: position ", position, " is held with other content"));
      }
    }
  }
  return absl::OkStatus();
}

void StoredLayer::AppendToHeads(const RowsRecord& rows) {
  const size_t heads = heads_.size();
  std::vector<std::byte> key_rows;
  std::vector<std::byte> value_rows;
  std::vector<float> queries;
  for (size_t head = 0; head < heads; ++head) {
    HeadIndex& index = heads_[head]->index();
    const auto keys = HeadRows(rows.keys, heads, head, key_row_bytes(), key_rows);
    const auto values = HeadRows(rows.values, heads, head, value_row_bytes(), value_rows);
    // More than it holds only while a layer is recovered.
    const auto held = static_cast<size_t>(std::clamp<int64_t>(
        index.token_count() - rows.begin_position, 0, static_cast<int64_t>(rows.count)));
    const size_t count = rows.count - held;
    index.Append({keys.data() + held * key_row_bytes(), fingerprint_.element_type, count,
                  fingerprint_.head_dim},
                 {values.data() + held * value_row_bytes(), fingerprint_.element_type, count,
                  fingerprint_.value_dim});
    if (!rows.query_sample.empty()) {
      index.AddTrainingQueries(GroupQueries(rows.query_sample, heads, head, fingerprint_.group(),
                                            fingerprint_.head_dim, queries));
    }
    heads_[head]->UpdateCharge();
  }
}

void StoredLayer::RecoverRows(const RowsRecord& rows) { AppendToHeads(rows); }

void StoredLayer::PublishRecovered() {
  int64_t held = std::numeric_limits<int64_t>::max();
  for (const auto& head : heads_) held = std::min(held, head->index().token_count());
  Publish(held);
}

absl::Status StoredLayer::FinishRecovery(int64_t position) {
  Publish(position);
  return ForgetHidden();
}

void StoredLayer::ScheduleBuilds(BuildScheduler& scheduler) {
  for (const auto& head : heads_) scheduler.Schedule(head);
}

LayerSnapshot StoredLayer::Snapshot() const {
  LayerSnapshot snapshot;
  snapshot.heads.reserve(heads_.size());
  MutexLock lock(published_mutex_);
  snapshot.watermark = watermark_;
  for (const auto& head : heads_) snapshot.heads.push_back(head->index().Snapshot());
  return snapshot;
}

int64_t StoredLayer::watermark() const {
  MutexLock lock(published_mutex_);
  return watermark_;
}

StoredLayer::Exclusive StoredLayer::Hold() {
  Exclusive exclusive;
  exclusive.change = change_turn_.Take();
  for (const auto& head : heads_) exclusive.disks.push_back(head->HoldDisk());
  return exclusive;
}

absl::Status StoredLayer::LoadCut(int64_t position) {
  for (const auto& head : heads_) {
    for (const auto& segment : head->index().Segments()) {
      const bool cut = segment->begin_position < position && position < segment->end_position();
      if (cut) ATTIC_RETURN_IF_ERROR(segment->vectors->Load());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerCut> StoredLayer::PrepareCut(int64_t position, std::vector<LayerRows>& rows) {
  LayerCut cut{.layer = layer_, .position = position};
  int64_t needed_from = position;  // rows from here on that are not in segments which stay
  for (const auto& head : heads_) {
    const size_t kept =
        std::min(head->disk_segments(), static_cast<size_t>(position / options_.segment_tokens));
    cut.kept_segments.push_back(kept);
    needed_from = std::min(needed_from, static_cast<int64_t>(kept) * options_.segment_tokens);
  }
  const PositionRange dropped{needed_from, std::min(position, disk_->rows_begin())};
  if (dropped.begin >= dropped.end) return cut;
  ATTIC_RETURN_IF_ERROR(CopyRows(dropped, rows));
  for (const LayerRows& piece : rows) {
    cut.rows.push_back({piece.begin_position, piece.count, piece.keys, piece.values, {}});
  }
  return cut;
}

absl::Status StoredLayer::Truncate(int64_t position) {
  if (position >= watermark()) return absl::OkStatus();
  if (disk_ != nullptr) {
    for (uint32_t h = 0; h < heads_.size(); ++h) {
      const size_t kept = std::min(heads_[h]->disk_segments(),
                                   static_cast<size_t>(position / options_.segment_tokens));
      heads_[h]->CutDisk(kept);
      disk_->NoteSegments(h, static_cast<int64_t>(kept) * options_.segment_tokens);
    }
    disk_->NoteDurable(position);
  }
  // Snapshots wait, so that none sees some heads before and some after.
  MutexLock published(published_mutex_);
  watermark_ = position;
  absl::Status truncated;
  for (const auto& head : heads_) {
    truncated.Update(head->index().Truncate(position));
    head->UpdateCharge();
  }
  return truncated;
}

absl::StatusOr<LayerState> StoredLayer::PrepareFork(int64_t position,
                                                    std::vector<LayerRows>& rows) {
  LayerState state{.layer = layer_};
  int64_t needed_from = position;
  for (uint32_t h = 0; h < heads_.size(); ++h) {
    const size_t kept = std::min(heads_[h]->disk_segments(),
                                 static_cast<size_t>(position / options_.segment_tokens));
    needed_from = std::min(needed_from, static_cast<int64_t>(kept) * options_.segment_tokens);
    state.segments.emplace_back();
    if (kept == 0) continue;
    ATTIC_ASSIGN_OR_RETURN(state.segments.back(), disk_->store()->Segments(disk_->head(h)));
    state.segments.back().resize(kept);
  }
  const auto bytes = static_cast<uint64_t>(position - needed_from) * heads_.size() *
                     (key_row_bytes() + value_row_bytes());
  if (bytes > kForkRowsBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("durability: ", bytes, " bytes of layer ",
                                                     layer_,
                                                     " are not in segments on disk; a durable "
                                                     "fork writes at most ",
                                                     kForkRowsBytesMax));
  }
  ATTIC_RETURN_IF_ERROR(CopyRows({needed_from, position}, rows));
  for (const LayerRows& piece : rows) {
    state.rows.push_back({piece.begin_position, piece.count, piece.keys, piece.values, {}});
  }
  return state;
}

// In pieces that are one record each.
absl::Status StoredLayer::CopyRows(PositionRange range, std::vector<LayerRows>& rows) const {
  const size_t heads = heads_.size();
  const size_t key_bytes = key_row_bytes(), value_bytes = value_row_bytes();
  std::vector<std::byte> keys, values;
  for (int64_t begin = range.begin; begin < range.end; begin += kRowsCopiedTogether) {
    const int64_t end = std::min(range.end, begin + kRowsCopiedTogether);
    const auto count = static_cast<size_t>(end - begin);
    LayerRows piece{.begin_position = begin, .count = count};
    piece.keys.resize(count * heads * key_bytes);
    piece.values.resize(count * heads * value_bytes);
    keys.resize(count * key_bytes);
    values.resize(count * value_bytes);
    for (size_t h = 0; h < heads; ++h) {
      ATTIC_RETURN_IF_ERROR(
          heads_[h]->index().Snapshot()->CopyRange({begin, end}, keys.data(), values.data()));
      for (size_t i = 0; i < count; ++i) {
        std::memcpy(piece.keys.data() + (i * heads + h) * key_bytes, keys.data() + i * key_bytes,
                    key_bytes);
        std::memcpy(piece.values.data() + (i * heads + h) * value_bytes,
                    values.data() + i * value_bytes, value_bytes);
      }
    }
    rows.push_back(std::move(piece));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StoredLayer>> StoredLayer::Fork(int64_t position) {
  const int64_t held = watermark();
  if (position > held) {
    return absl::OutOfRangeError(absl::StrCat("position: ", position, " is beyond the watermark ",
                                              held, " of layer ", layer_));
  }
  std::unique_ptr<StoredLayer> fork(new StoredLayer(fingerprint_, layer_, options_, budget_));
  for (const auto& head : heads_) {
    ATTIC_ASSIGN_OR_RETURN(auto forked, head->Fork(position));
    fork->heads_.push_back(std::move(forked));
  }
  fork->Publish(position);
  return fork;
}

void StoredLayer::Close() {
  for (const auto& head : heads_) head->DetachDisk();
  MutexLock published(published_mutex_);
  closed_ = true;
}

LayerDescription StoredLayer::Describe() const {
  const LayerSnapshot snapshot = Snapshot();
  int64_t indexed = snapshot.watermark;
  for (const auto& head : snapshot.heads) indexed = std::min(indexed, head->indexed_tokens());
  return {.layer = layer_,
          .watermark = snapshot.watermark,
          .indexed_tokens = indexed,
          .tail_tokens = snapshot.watermark - indexed,
          .durable_watermark = disk_ == nullptr ? 0 : disk_->durable_watermark()};
}

void StoredLayer::AppendPlans(std::vector<HeadPlan>& plans) const {
  for (uint32_t head = 0; head < heads_.size(); ++head) {
    plans.push_back(heads_[head]->index().Plan());
    plans.back().layer = layer_;
    plans.back().kv_head = head;
  }
}

MemoryUse StoredLayer::memory_use() const {
  MemoryUse sum;
  for (const auto& head : heads_) sum += head->index().memory_use();
  return sum;
}

int64_t StoredLayer::pending_segments() const {
  int64_t sum = 0;
  for (const auto& head : heads_) sum += head->pending_segments();
  return sum;
}

int64_t StoredLayer::most_pending_segments() const {
  int64_t most = 0;
  for (const auto& head : heads_) most = std::max(most, head->pending_segments());
  return most;
}

}  // namespace attic
