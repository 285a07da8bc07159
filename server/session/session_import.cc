#include "server/session/session_import.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention/element_type.h"
#include "base/status_macros.h"
#include "server/index/segment/segment.h"
#include "server/storage/segment_image.h"

namespace attic {
namespace {

absl::Status Damaged(const char* what) {
  return absl::DataLossError(absl::StrCat("snapshot: ", what));
}

}  // namespace

SessionImport::SessionImport(Options options, SessionResources resources)
    : options_(std::move(options)),
      resources_(std::move(resources)),
      reader_([this](uint64_t bytes) { return Reserve(bytes); },
              [this](const SnapshotItemName& name, std::string item) {
                return Take(name, std::move(item));
              }) {}

absl::Status SessionImport::Write(std::string_view bytes) { return reader_.Read(bytes); }

absl::Status SessionImport::Reserve(uint64_t bytes) {
  // Before the session is known its tenant is not.
  if (room_ == nullptr) room_ = std::make_unique<MemoryCharge>(resources_.budget);
  room_->Set(rows_bytes_);
  // Gathered, and then taken apart.
  if (options_.make_room) options_.make_room(2 * bytes);
  return room_->Reserve(2 * bytes);
}

absl::Status SessionImport::Take(const SnapshotItemName& name, std::string item) {
  const bool first = session_ == nullptr;
  if (first != (name.kind == SnapshotKind::kSession)) {
    return Damaged("it does not begin with a session, or has two");
  }
  switch (name.kind) {
    case SnapshotKind::kSession:
      return TakeSession(item);
    case SnapshotKind::kHeadState:
      return TakeHeadState(name, item);
    case SnapshotKind::kSegment:
      return TakeSegment(name, item);
    default:
      return TakeRows(name, std::move(item));
  }
}

absl::Status SessionImport::TakeSession(const std::string& item) {
  ATTIC_ASSIGN_OR_RETURN(snapshot_, DecodeSnapshotSession(item));
  const SessionRecord& record = snapshot_.record;
  const SessionAttributes& attributes = snapshot_.recorded.attributes;
  const OpenSessionRequest request{
      .session_id = options_.session_id.empty() ? record.session_id : options_.session_id,
      .fingerprint = record.fingerprint,
      .stored_layers = record.stored_layers,
      .durability = options_.durability,
      .tenant = attributes.tenant,
      .ttl_seconds = attributes.ttl_seconds,
      .pinned = snapshot_.recorded.pinned,
      .prefix_hashes = snapshot_.recorded.prefix_hashes,
      .placement = options_.placement.has_value() ? options_.placement : attributes.placement};
  if (!std::is_sorted(record.stored_layers.begin(), record.stored_layers.end())) {
    return Damaged("its layers are not in order");
  }
  ATTIC_RETURN_IF_ERROR(options_.admit(request));
  room_.reset();
  resources_ = resources_.Of(attributes.tenant);
  ATTIC_ASSIGN_OR_RETURN(session_, Session::CreateEmpty(request, resources_));
  for (const uint32_t layer : record.stored_layers) {
    states_.push_back({.layer = layer});
    states_.back().segments.resize(record.fingerprint.kv_heads);
  }
  return absl::OkStatus();
}

// Items of a layer: per head its state and its segments; then rows.
absl::Status SessionImport::CheckPlace(const SnapshotItemName& name) {
  const auto& layers = session_->layers();
  const auto is_layer = [&](size_t i) {
    return i < layers.size() && layers[i]->layer() == name.layer;
  };
  if (!is_layer(layer_)) {
    ATTIC_RETURN_IF_ERROR(FinishLayer());
    if (!is_layer(layer_)) return Damaged("layers are not in order");
  }
  if (name.kind == SnapshotKind::kHeadState) {
    if (in_head_) ATTIC_RETURN_IF_ERROR(FinishHead());
    return name.kv_head == head_ && head_ < layer().kv_heads() ? absl::OkStatus()
                                                               : Damaged("heads are not in order");
  }
  if (name.kind == SnapshotKind::kSegment) {
    return in_head_ && name.kv_head == head_ ? absl::OkStatus()
                                             : Damaged("a segment is not with its head");
  }
  if (in_head_) ATTIC_RETURN_IF_ERROR(FinishHead());
  return head_ == layer().kv_heads() ? absl::OkStatus() : Damaged("rows come before all heads");
}

absl::Status SessionImport::FinishHead() {
  HeadIndex& index = layer().head(head_).index();
  if (index.Segments().size() != head_segments_) return Damaged("segments of a head are missing");
  if (!learnt_) ATTIC_RETURN_IF_ERROR(index.LearnFromSegments());
  in_head_ = false;
  ++head_;
  return absl::OkStatus();
}

absl::Status SessionImport::FinishLayer() {
  if (layer_ >= session_->layers().size()) return Damaged("there are layers too many");
  if (in_head_) ATTIC_RETURN_IF_ERROR(FinishHead());
  if (head_ != layer().kv_heads()) return Damaged("heads of a layer are missing");
  for (uint32_t h = 0; h < layer().kv_heads(); ++h) {
    if (layer().head(h).index().token_count() != snapshot_.position) {
      return Damaged("a layer does not hold all positions");
    }
  }
  ATTIC_RETURN_IF_ERROR(layer().FinishRecovery(snapshot_.position));
  ++layer_;
  head_ = 0;
  layer_rows_bytes_ = 0;
  return absl::OkStatus();
}

absl::Status SessionImport::TakeHeadState(const SnapshotItemName& name, const std::string& item) {
  ATTIC_RETURN_IF_ERROR(CheckPlace(name));
  ATTIC_ASSIGN_OR_RETURN(const SnapshotHead head, DecodeSnapshotHead(item));
  // As many as there can be, so that the number may be relied on.
  const auto segments_max = static_cast<uint64_t>(snapshot_.position) /
                            static_cast<uint64_t>(resources_.index.segment_tokens);
  if (head.segments > segments_max) {
    return absl::FailedPreconditionError(
        absl::StrCat("snapshot: a head has ", head.segments,
                     " segments; the store was started with other segment_tokens"));
  }
  in_head_ = true;
  head_segments_ = head.segments;
  HeadIndex& index = layer().head(head_).index();
  // What cannot be restored is learnt anew.
  learnt_ = index.RestoreLearntState(head.learnt, head.segments).ok();
  return absl::OkStatus();
}

absl::Status SessionImport::TakeSegment(const SnapshotItemName& name, const std::string& item) {
  ATTIC_RETURN_IF_ERROR(CheckPlace(name));
  ATTIC_ASSIGN_OR_RETURN(SegmentImage image, DecodeSegmentImage(item));
  Segment& segment = *image.segment;
  if (segment.end_position() > snapshot_.position) return Damaged("a segment is too long");
  if (durable()) {
    SegmentReference reference;
    ATTIC_ASSIGN_OR_RETURN(auto source,
                           resources_.disk->SpillSegment(segment, image.vectors, &reference));
    segment.vectors = std::make_shared<SegmentVectors>(std::move(source), segment.clusters.count,
                                                       resources_.budget);
    states_[layer_].segments[head_].push_back(reference);
  } else {
    segment.vectors = std::make_shared<SegmentVectors>(std::move(image.vectors),
                                                       segment.clusters.count, resources_.budget);
  }
  SessionHead& head = layer().head(head_);
  const absl::Status added = head.index().AddSegment(std::move(image.segment));
  head.UpdateCharge();
  if (added.ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("snapshot: ", std::string(added.message())));
}

absl::Status SessionImport::TakeRows(const SnapshotItemName& name, std::string item) {
  ATTIC_RETURN_IF_ERROR(CheckPlace(name));
  ATTIC_ASSIGN_OR_RETURN(const RowsRecord rows, DecodeSnapshotRows(item));
  const Fingerprint& f = session_->fingerprint();
  const size_t element = ElementBytes(f.element_type);
  const size_t key_bytes = size_t{f.kv_heads} * f.head_dim * element;
  const size_t value_bytes = size_t{f.kv_heads} * f.value_dim * element;
  int64_t held = std::numeric_limits<int64_t>::max();
  for (uint32_t h = 0; h < layer().kv_heads(); ++h) {
    held = std::min(held, layer().head(h).index().token_count());
  }
  // Every row counts: those that all heads held before are of no use.
  const bool fits =
      rows.begin_position == held && rows.count > 0 &&
      rows.count <= static_cast<uint64_t>(snapshot_.position - held) &&
      rows.keys.size() / key_bytes == rows.count && rows.keys.size() % key_bytes == 0 &&
      rows.values.size() / value_bytes == rows.count && rows.values.size() % value_bytes == 0;
  if (!fits) return Damaged("rows are not those that follow");
  if (!AllFinite(rows.keys.data(), f.element_type, rows.keys.size() / element) ||
      !AllFinite(rows.values.data(), f.element_type, rows.values.size() / element)) {
    return Damaged("rows have NaN or infinity");
  }
  layer().RecoverRows(rows);
  if (!durable()) return absl::OkStatus();
  layer_rows_bytes_ += item.size();
  rows_bytes_ += item.size();
  rows_.push_back({.layer = layer_, .item = std::move(item)});
  if (layer_rows_bytes_ > kRowsBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("durability: more than ", kRowsBytesMax, " bytes of layer ", name.layer,
                     " are in no segment; a durable import writes at most that"));
  }
  return absl::OkStatus();
}

absl::Status SessionImport::PutOnDisk() {
  for (const KeptRows& kept : rows_) {
    ATTIC_ASSIGN_OR_RETURN(const RowsRecord rows, DecodeSnapshotRows(kept.item));
    states_[kept.layer].rows.push_back(rows);
  }
  ATTIC_RETURN_IF_ERROR(session_->PutOnDisk(states_));
  // What is missing after a crash in between is learnt anew.
  for (const auto& layer : session_->layers()) {
    for (uint32_t h = 0; h < layer->kv_heads(); ++h) {
      resources_.disk->PutHeadState(layer->disk()->head(h), layer->head(h).index().LearntState())
          .IgnoreError();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SessionImport::Imported> SessionImport::Finish() {
  ATTIC_RETURN_IF_ERROR(reader_.Finish());
  if (session_ == nullptr) return Damaged("it holds no session");
  ATTIC_RETURN_IF_ERROR(FinishLayer());
  if (layer_ != session_->layers().size()) return Damaged("layers are missing");
  if (durable()) ATTIC_RETURN_IF_ERROR(PutOnDisk());
  room_.reset();
  return Imported{.session = std::move(session_),
                  .pinned = snapshot_.recorded.pinned,
                  .hashes = std::move(snapshot_.recorded.prefix_hashes)};
}

}  // namespace attic
