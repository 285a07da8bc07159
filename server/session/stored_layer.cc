#include "server/session/stored_layer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/session/head_rows.h"

namespace attic {

absl::StatusOr<std::unique_ptr<StoredLayer>> StoredLayer::Create(
    const Fingerprint& fingerprint, uint32_t layer, const IndexOptions& options,
    const std::shared_ptr<MemoryBudget>& budget) {
  const HeadShape shape = {.head_dim = fingerprint.head_dim,
                           .value_dim = fingerprint.value_dim,
                           .group = fingerprint.group(),
                           .element_type = fingerprint.element_type,
                           .logit_scale = fingerprint.logit_scale};
  std::unique_ptr<StoredLayer> created(new StoredLayer(fingerprint, layer, budget));
  for (uint32_t head = 0; head < fingerprint.kv_heads; ++head) {
    ATTIC_ASSIGN_OR_RETURN(auto added, SessionHead::Create(shape, options, budget));
    created->heads_.push_back(std::move(added));
  }
  return created;
}

absl::StatusOr<int64_t> StoredLayer::Append(const AppendBatch& batch) {
  MutexLock lock(change_mutex_);
  const int64_t held = watermark();
  if (batch.begin_position > held) {
    return absl::OutOfRangeError(absl::StrCat("begin_position: ", batch.begin_position,
                                              " leaves a gap above the watermark ", held));
  }
  const size_t overlap =
      std::min<size_t>(batch.count, static_cast<size_t>(held - batch.begin_position));
  ATTIC_RETURN_IF_ERROR(CompareHeld(batch, overlap));
  if (overlap == batch.count) return held;

  MemoryCharge room(budget_);
  const size_t row_count = batch.count - overlap;
  ATTIC_RETURN_IF_ERROR(
      room.Reserve((batch.keys.size() + batch.values.size()) / batch.count * row_count));
  AppendToHeads(batch, overlap);

  MutexLock published(published_mutex_);
  watermark_ = batch.begin_position + static_cast<int64_t>(batch.count);
  return watermark_;
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

void StoredLayer::AppendToHeads(const AppendBatch& batch, size_t skip) {
  const size_t heads = heads_.size();
  const size_t rows = batch.count - skip;
  const auto keys = batch.keys.subspan(batch.keys.size() / batch.count * skip);
  const auto values = batch.values.subspan(batch.values.size() / batch.count * skip);
  std::vector<std::byte> key_rows;
  std::vector<std::byte> value_rows;
  std::vector<float> queries;
  for (size_t head = 0; head < heads; ++head) {
    const auto head_keys = HeadRows(keys, heads, head, keys.size() / (rows * heads), key_rows);
    const auto head_values =
        HeadRows(values, heads, head, values.size() / (rows * heads), value_rows);
    HeadIndex& index = heads_[head]->index();
    index.Append({head_keys.data(), fingerprint_.element_type, rows, fingerprint_.head_dim},
                 {head_values.data(), fingerprint_.element_type, rows, fingerprint_.value_dim});
    if (!batch.query_sample.empty()) {
      index.AddTrainingQueries(GroupQueries(batch.query_sample, heads, head, fingerprint_.group(),
                                            fingerprint_.head_dim, queries));
    }
    heads_[head]->UpdateCharge();
  }
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

void StoredLayer::Truncate(int64_t position) {
  MutexLock lock(change_mutex_);
  // Snapshots wait, so that none sees some heads before and some after.
  MutexLock published(published_mutex_);
  if (position >= watermark_) return;
  watermark_ = position;
  for (const auto& head : heads_) {
    head->index().Truncate(position);
    head->UpdateCharge();
  }
}

absl::StatusOr<std::unique_ptr<StoredLayer>> StoredLayer::Fork(int64_t position) {
  MutexLock lock(change_mutex_);
  const int64_t held = watermark();
  if (position > held) {
    return absl::OutOfRangeError(absl::StrCat("position: ", position, " is beyond the watermark ",
                                              held, " of layer ", layer_));
  }
  std::unique_ptr<StoredLayer> fork(new StoredLayer(fingerprint_, layer_, budget_));
  for (const auto& head : heads_) {
    ATTIC_ASSIGN_OR_RETURN(auto forked, head->Fork(position));
    fork->heads_.push_back(std::move(forked));
  }
  MutexLock published(fork->published_mutex_);
  fork->watermark_ = position;
  return fork;
}

LayerDescription StoredLayer::Describe() const {
  const LayerSnapshot snapshot = Snapshot();
  int64_t indexed = snapshot.watermark;
  for (const auto& head : snapshot.heads) indexed = std::min(indexed, head->indexed_tokens());
  return {.layer = layer_,
          .watermark = snapshot.watermark,
          .indexed_tokens = indexed,
          .tail_tokens = snapshot.watermark - indexed};
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
