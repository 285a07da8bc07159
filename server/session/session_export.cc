#include "server/session/session_export.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/index/segment/segment.h"
#include "server/session/snapshot_items.h"
#include "server/storage/segment_image.h"

namespace attic {
namespace {

// What an item of rows is about as large as.
constexpr size_t kRowsItemBytes = 1u << 20;
// Of clusters, sums and codes beside keys and values, for the estimate of the size.
constexpr double kIndexShare = 0.25;

uint64_t RandomIdentity() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

}  // namespace

SessionExport::SessionExport(std::shared_ptr<Session> session)
    : session_(std::move(session)), writer_(RandomIdentity()) {}

absl::StatusOr<std::unique_ptr<SessionExport>> SessionExport::Begin(
    const std::shared_ptr<Session>& session, std::optional<int64_t> position,
    const std::function<std::vector<PrefixHash>()>& hashes) {
  const Session::State state = session->state();
  if (state == Session::State::kRecovering || state == Session::State::kFailed) {
    return session->CheckChangeable();
  }
  std::unique_ptr<SessionExport> taken(new SessionExport(session));
  ATTIC_RETURN_IF_ERROR(taken->Take(position, hashes));
  taken->Estimate();
  return taken;
}

absl::Status SessionExport::Take(std::optional<int64_t> position,
                                 const std::function<std::vector<PrefixHash>()>& hashes) {
  const Turn::Holder structure = session_->HoldStructure();
  position_ = std::numeric_limits<int64_t>::max();
  for (const auto& stored : session_->layers()) {
    Layer layer{.layer = stored->layer()};
    for (uint32_t h = 0; h < stored->kv_heads(); ++h) {
      const HeadIndex& index = stored->head(h).index();
      // In this order: a head knows nothing of segments that it gets later.
      std::string learnt = index.LearntState();
      layer.heads.push_back({.learnt = std::move(learnt), .segments = index.Segments()});
    }
    LayerSnapshot snapshot = stored->Snapshot();
    position_ = std::min(position_, snapshot.watermark);
    for (size_t h = 0; h < layer.heads.size(); ++h) {
      layer.heads[h].snapshot = std::move(snapshot.heads[h]);
    }
    layers_.push_back(std::move(layer));
  }
  if (position.has_value()) {
    if (*position < 0) return absl::InvalidArgumentError("position: must not be negative");
    if (*position > position_) {
      return absl::OutOfRangeError(
          absl::StrCat("position: ", *position, " is beyond the watermark ", position_));
    }
    position_ = *position;
  }
  for (Layer& layer : layers_) {
    layer.rows_begin = position_;
    for (Head& head : layer.heads) {
      std::erase_if(head.segments,
                    [this](const auto& segment) { return segment->end_position() > position_; });
      const int64_t end = head.segments.empty() ? 0 : head.segments.back()->end_position();
      layer.rows_begin = std::min(layer.rows_begin, end);
    }
  }
  Describe(hashes());
  return absl::OkStatus();
}

void SessionExport::Describe(std::vector<PrefixHash> hashes) {
  SnapshotSession described{
      .record = {.session_id = session_->id(), .fingerprint = session_->fingerprint()},
      .recorded = {.attributes = session_->attributes(),
                   .pinned = session_->lease().pinned(),
                   .prefix_hashes = std::move(hashes)},
      .position = position_};
  for (const Layer& layer : layers_) described.record.stored_layers.push_back(layer.layer);
  // Of whole blocks that are held.
  auto& kept = described.recorded.prefix_hashes;
  kept.resize(std::min(kept.size(), static_cast<size_t>(position_) / kPrefixBlockTokens));
  description_ = EncodeSnapshotSession(described);
}

void SessionExport::Estimate() {
  double bytes = static_cast<double>(description_.size());
  for (const Layer& layer : layers_) {
    for (const Head& head : layer.heads) {
      bytes += static_cast<double>(head.learnt.size());
      for (const auto& segment : head.segments) {
        bytes += static_cast<double>(segment->tokens * row_bytes()) * (1 + kIndexShare);
      }
    }
    bytes += static_cast<double>(position_ - layer.rows_begin) *
             static_cast<double>(layer.heads.size() * row_bytes());
  }
  bytes_estimated_ = static_cast<uint64_t>(bytes);
}

size_t SessionExport::row_bytes() const {
  const Fingerprint& fingerprint = session_->fingerprint();
  return (size_t{fingerprint.head_dim} + fingerprint.value_dim) *
         ElementBytes(fingerprint.element_type);
}

absl::StatusOr<bool> SessionExport::Next(std::string& chunk) {
  if (!begun_) {
    begun_ = true;
    chunk = writer_.Begin();
    return true;
  }
  if (ended_) return false;
  if (!described_ || writer_.ItemDone()) {
    ATTIC_ASSIGN_OR_RETURN(const bool more, NextItem());
    if (!more) {
      ended_ = true;
      chunk = writer_.End();
      return true;
    }
  }
  chunk = writer_.NextBlock();
  return true;
}

absl::StatusOr<bool> SessionExport::NextItem() {
  if (!described_) {
    described_ = true;
    writer_.StartItem({.kind = SnapshotKind::kSession}, description_);
    return true;
  }
  for (; cursor_.layer < layers_.size(); cursor_ = {.layer = cursor_.layer + 1}) {
    const Layer& layer = layers_[cursor_.layer];
    ATTIC_ASSIGN_OR_RETURN(bool more, NextOfHead(layer));
    if (more) return true;
    ATTIC_ASSIGN_OR_RETURN(more, NextRows(layer));
    if (more) return true;
  }
  return false;
}

absl::StatusOr<bool> SessionExport::NextOfHead(const Layer& layer) {
  for (; cursor_.head < layer.heads.size(); ++cursor_.head, cursor_.in_head = false) {
    const Head& head = layer.heads[cursor_.head];
    SnapshotItemName name{.kind = SnapshotKind::kHeadState,
                          .layer = layer.layer,
                          .kv_head = static_cast<uint32_t>(cursor_.head)};
    if (!cursor_.in_head) {
      cursor_.in_head = true;
      cursor_.segment = 0;
      writer_.StartItem(name, EncodeSnapshotHead({head.segments.size(), head.learnt}));
      return true;
    }
    if (cursor_.segment == head.segments.size()) continue;
    const Segment& segment = *head.segments[cursor_.segment++];
    ATTIC_ASSIGN_OR_RETURN(const auto arrays, segment.vectors->ArraysOrRead());
    ATTIC_ASSIGN_OR_RETURN(std::string image, EncodeSegmentImage(segment, *arrays));
    name.kind = SnapshotKind::kSegment;
    writer_.StartItem(name, std::move(image));
    return true;
  }
  return false;
}

absl::StatusOr<bool> SessionExport::NextRows(const Layer& layer) {
  if (cursor_.position < 0) cursor_.position = layer.rows_begin;
  if (cursor_.position >= position_) return false;
  const Fingerprint& fingerprint = session_->fingerprint();
  const size_t heads = layer.heads.size();
  const size_t element = ElementBytes(fingerprint.element_type);
  const size_t key_bytes = fingerprint.head_dim * element;
  const size_t value_bytes = fingerprint.value_dim * element;
  const auto count_max =
      static_cast<int64_t>(std::max<size_t>(1, kRowsItemBytes / (heads * row_bytes())));
  const int64_t begin = cursor_.position, end = std::min(position_, begin + count_max);
  const auto count = static_cast<size_t>(end - begin);
  LayerRows rows{.begin_position = begin, .count = count};
  rows.keys.resize(count * heads * key_bytes);
  rows.values.resize(count * heads * value_bytes);
  std::vector<std::byte> keys(count * key_bytes), values(count * value_bytes);
  for (size_t h = 0; h < heads; ++h) {
    ATTIC_RETURN_IF_ERROR(
        layer.heads[h].snapshot->CopyRange({begin, end}, keys.data(), values.data()));
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(rows.keys.data() + (i * heads + h) * key_bytes, keys.data() + i * key_bytes,
                  key_bytes);
      std::memcpy(rows.values.data() + (i * heads + h) * value_bytes,
                  values.data() + i * value_bytes, value_bytes);
    }
  }
  cursor_.position = end;
  writer_.StartItem({.kind = SnapshotKind::kRows, .layer = layer.layer},
                    EncodeSnapshotRows({begin, count, rows.keys, rows.values, {}}));
  return true;
}

}  // namespace attic
