#include "server/session/session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/session/shard_view.h"
#include "server/session/validation.h"

namespace attic {

SessionResources SessionResources::Of(const std::string& tenant) const {
  SessionResources resources = *this;
  if (tenants == nullptr) return resources;
  resources.budget = tenants->Of(tenant);
  resources.index.vectors_budget = resources.budget;
  return resources;
}

absl::StatusOr<std::shared_ptr<Session>> Session::Create(const OpenSessionRequest& request,
                                                         const SessionResources& resources) {
  ATTIC_ASSIGN_OR_RETURN(auto session, CreateEmpty(request, resources));
  if (session->durable()) ATTIC_RETURN_IF_ERROR(session->PutOnDisk({}));
  return session;
}

absl::StatusOr<std::shared_ptr<Session>> Session::CreateEmpty(const OpenSessionRequest& request,
                                                              const SessionResources& of_all) {
  const SessionResources resources = of_all.Of(request.tenant);
  std::vector<uint32_t> layers = request.stored_layers;
  std::sort(layers.begin(), layers.end());
  std::shared_ptr<Session> session(new Session(request.session_id, request.fingerprint,
                                               {.durability = request.durability,
                                                .tenant = request.tenant,
                                                .ttl_seconds = request.ttl_seconds,
                                                .placement = request.placement},
                                               resources));
  for (const uint32_t layer : layers) {
    ATTIC_ASSIGN_OR_RETURN(auto created, StoredLayer::Create(request.fingerprint, layer,
                                                             resources.index, resources.budget));
    session->layers_.push_back(std::move(created));
  }
  return session;
}

absl::Status Session::PutOnDisk(std::span<const LayerState> layers) {
  std::vector<std::vector<size_t>> disk_segments;
  for (const LayerState& layer : layers) {
    disk_segments.emplace_back();
    for (const auto& segments : layer.segments) disk_segments.back().push_back(segments.size());
  }
  SessionRecord record = Record({});
  ATTIC_RETURN_IF_ERROR(resources_.disk->CreateSession(record, layers));
  disk_key_ = record.key;
  AttachDisks(disk_segments);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Session>> Session::Recover(const SessionRecord& record,
                                                          const SessionResources& of_all) {
  ATTIC_ASSIGN_OR_RETURN(RecordedAttributes recorded, DecodeSessionAttributes(record.attributes));
  const SessionResources resources = of_all.Of(recorded.attributes.tenant);
  std::shared_ptr<Session> session(
      new Session(record.session_id, record.fingerprint, recorded.attributes, resources));
  session->lease_.SetPinned(recorded.pinned);
  session->recovered_hashes_ = std::move(recorded.prefix_hashes);
  for (const uint32_t layer : record.stored_layers) {
    ATTIC_ASSIGN_OR_RETURN(auto created, StoredLayer::Create(record.fingerprint, layer,
                                                             resources.index, resources.budget));
    session->layers_.push_back(std::move(created));
  }
  session->disk_key_ = record.key;
  MutexLock lock(session->state_mutex_);
  session->state_ = State::kRecovering;
  return session;
}

SessionRecord Session::Record(const std::vector<PrefixHash>& hashes) const {
  SessionRecord record{.key = disk_key_, .session_id = id_, .fingerprint = fingerprint_};
  for (const auto& layer : layers_) record.stored_layers.push_back(layer->layer());
  record.attributes = EncodeSessionAttributes({attributes_, lease_.pinned(), hashes});
  return record;
}

// disk_segments: per layer and kv head; empty: none.
void Session::AttachDisks(const std::vector<std::vector<size_t>>& disk_segments) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    StoredLayer& layer = *layers_[i];
    auto disk = std::make_shared<LayerDisk>(resources_.disk, disk_key_, layer.layer(),
                                            layer.kv_heads(), resources_.on_disk_write);
    layer.AttachDisk(
        disk, disk_segments.empty() ? std::vector<size_t>(layer.kv_heads(), 0) : disk_segments[i]);
    disk->NoteDurable(layer.watermark());
  }
}

void Session::FinishRecovery(State state, absl::Status why) {
  if (state == State::kServing || state == State::kDamaged) {
    std::vector<std::vector<size_t>> disk_segments;
    for (const auto& layer : layers_) {
      disk_segments.emplace_back();
      for (uint32_t h = 0; h < layer->kv_heads(); ++h) {
        disk_segments.back().push_back(layer->head(h).index().Segments().size());
      }
    }
    AttachDisks(disk_segments);
  }
  MutexLock lock(state_mutex_);
  state_ = state;
  why_ = std::move(why);
}

Session::State Session::state() const {
  MutexLock lock(state_mutex_);
  return state_;
}

absl::Status Session::CheckChangeable() const {
  MutexLock lock(state_mutex_);
  switch (state_) {
    case State::kServing:
      return absl::OkStatus();
    case State::kRecovering:
      return absl::UnavailableError("session_id: the session is being read from disk");
    default:
      return why_;
  }
}

absl::Status Session::CheckReadable(int64_t end, int64_t watermark) const {
  MutexLock lock(state_mutex_);
  if (state_ == State::kServing || (state_ != State::kFailed && end <= watermark)) {
    return absl::OkStatus();
  }
  if (state_ != State::kRecovering) return why_;
  return absl::UnavailableError(absl::StrCat(
      "session_id: the session is being read from disk, which has come to position ", watermark));
}

absl::Status Session::CheckSame(const OpenSessionRequest& request) const {
  ATTIC_RETURN_IF_ERROR(CompareFingerprints(fingerprint_, request.fingerprint));
  if (attributes_.tenant != request.tenant) {
    return absl::FailedPreconditionError("tenant: differs from the session's");
  }
  if (attributes_.durability < request.durability) {
    return absl::FailedPreconditionError("durability: the session is in memory");
  }
  if (attributes_.placement != request.placement) {
    return absl::FailedPreconditionError("placement: differs from the session's");
  }
  std::vector<uint32_t> layers = request.stored_layers;
  std::sort(layers.begin(), layers.end());
  const bool same =
      std::equal(layers.begin(), layers.end(), layers_.begin(), layers_.end(),
                 [](uint32_t layer, const auto& stored) { return layer == stored->layer(); });
  if (same) return absl::OkStatus();
  return absl::FailedPreconditionError("stored_layers: differ from the session's");
}

absl::StatusOr<StoredLayer*> Session::FindLayer(uint32_t layer) const {
  const auto found =
      std::lower_bound(layers_.begin(), layers_.end(), layer,
                       [](const auto& stored, uint32_t l) { return stored->layer() < l; });
  if (found != layers_.end() && (*found)->layer() == layer) return found->get();
  return absl::InvalidArgumentError(
      absl::StrCat("layer: ", layer, " is not among the session's stored layers"));
}

absl::Status Session::Truncate(int64_t position) {
  if (state() == State::kRecovering || state() == State::kFailed) return CheckChangeable();
  const Turn::Holder structure = structure_turn_.Take();
  int64_t highest = 0;
  for (const auto& layer : layers_) highest = std::max(highest, layer->watermark());
  if (position > highest) {
    return absl::OutOfRangeError(
        absl::StrCat("position: ", position, " is beyond the watermark ", highest));
  }
  std::vector<StoredLayer::Exclusive> held;
  for (const auto& layer : layers_) {
    held.push_back(layer->Hold());
    ATTIC_RETURN_IF_ERROR(layer->LoadCut(position));
  }
  if (durable()) ATTIC_RETURN_IF_ERROR(CutOnDisk(position));
  const auto first_block = static_cast<size_t>(position / kDigestBlockTokens);
  block_digests_.Cut(first_block);
  absl::Status truncated;
  for (const auto& layer : layers_) truncated.Update(layer->Truncate(position));
  block_digests_.Cut(first_block);
  // The caller knows now what is left, and goes on from there.
  MutexLock lock(state_mutex_);
  state_ = State::kServing;
  return truncated;
}

absl::Status Session::CutOnDisk(int64_t position) {
  std::vector<LayerCut> cuts;
  std::vector<std::vector<LayerRows>> rows(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (state() == State::kServing && position >= layers_[i]->watermark()) continue;
    const int64_t at = std::min(position, layers_[i]->watermark());
    ATTIC_ASSIGN_OR_RETURN(cuts.emplace_back(), layers_[i]->PrepareCut(at, rows[i]));
  }
  return resources_.disk->TruncateLayers(disk_key_, cuts);
}

absl::StatusOr<std::shared_ptr<Session>> Session::Fork(int64_t position, const std::string& new_id,
                                                       const SessionAttributes& attributes) {
  ATTIC_RETURN_IF_ERROR(CheckChangeable());
  const Turn::Holder structure = structure_turn_.Take();
  std::shared_ptr<Session> fork(new Session(new_id, fingerprint_, attributes, resources_));
  std::vector<StoredLayer::Exclusive> held;
  for (const auto& layer : layers_) {
    held.push_back(layer->Hold());
    ATTIC_RETURN_IF_ERROR(layer->LoadCut(position));
    ATTIC_ASSIGN_OR_RETURN(auto forked, layer->Fork(position));
    fork->layers_.push_back(std::move(forked));
  }
  if (!fork->durable()) return fork;
  std::vector<LayerState> states;
  std::vector<std::vector<LayerRows>> rows(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    ATTIC_ASSIGN_OR_RETURN(states.emplace_back(), layers_[i]->PrepareFork(position, rows[i]));
  }
  ATTIC_RETURN_IF_ERROR(fork->PutOnDisk(states));
  return fork;
}

absl::Status Session::Save(const std::function<std::vector<PrefixHash>()>& hashes) {
  if (disk_key_ == 0) return absl::OkStatus();
  // Asked for in turn, so that the last to write has the latest.
  const Turn::Holder structure = structure_turn_.Take();
  return resources_.disk->UpdateSession(Record(hashes()));
}

absl::Status Session::RemoveFromDisk() {
  if (disk_key_ == 0) return absl::OkStatus();
  const Turn::Holder structure = structure_turn_.Take();
  std::vector<StoredLayer::Exclusive> held;
  for (const auto& layer : layers_) held.push_back(layer->Hold());
  ATTIC_RETURN_IF_ERROR(resources_.disk->RemoveSession(disk_key_));
  for (const auto& layer : layers_) layer->Close();
  return absl::OkStatus();
}

int64_t Session::watermark() const {
  int64_t lowest = std::numeric_limits<int64_t>::max();
  for (const auto& layer : layers_) lowest = std::min(lowest, layer->watermark());
  return lowest;
}

std::vector<HeadPlan> Session::Plan() const {
  std::vector<HeadPlan> plans;
  for (const auto& layer : layers_) layer->AppendPlans(plans);
  return plans;
}

SessionDescription Session::Describe() const {
  SessionDescription description;
  description.session_id = id_;
  description.fingerprint = fingerprint_;
  description.durability = attributes_.durability;
  description.tenant = attributes_.tenant;
  description.ttl_seconds = attributes_.ttl_seconds;
  description.reused_tokens = attributes_.reused_tokens;
  description.pinned = lease_.pinned();
  description.placement = attributes_.placement;
  description.watermark = std::numeric_limits<int64_t>::max();
  int64_t durable = std::numeric_limits<int64_t>::max();
  for (const auto& layer : layers_) {
    description.layers.push_back(layer->Describe());
    const LayerDescription& added = description.layers.back();
    description.watermark = std::min(description.watermark, added.watermark);
    durable = std::min(durable, added.durable_watermark);
    const MemoryUse memory = layer->memory_use();
    description.memory_bytes += memory.total();
    description.evicted_bytes += memory.evicted_bytes;
  }
  description.durable_watermark = durable;
  return description;
}

}  // namespace attic
