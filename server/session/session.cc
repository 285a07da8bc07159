#include "server/session/session.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/session/validation.h"

namespace attic {

absl::StatusOr<std::shared_ptr<Session>> Session::Create(
    const OpenSessionRequest& request, const IndexOptions& options,
    const std::shared_ptr<MemoryBudget>& budget) {
  std::vector<uint32_t> layers = request.stored_layers;
  std::sort(layers.begin(), layers.end());
  std::shared_ptr<Session> session(new Session(request.session_id, request.fingerprint,
                                               {.durability = request.durability,
                                                .tenant = request.tenant,
                                                .ttl_seconds = request.ttl_seconds}));
  for (const uint32_t layer : layers) {
    ATTIC_ASSIGN_OR_RETURN(auto created,
                           StoredLayer::Create(request.fingerprint, layer, options, budget));
    session->layers_.push_back(std::move(created));
  }
  return session;
}

absl::Status Session::CheckSame(const OpenSessionRequest& request) const {
  ATTIC_RETURN_IF_ERROR(CompareFingerprints(fingerprint_, request.fingerprint));
  if (attributes_.tenant != request.tenant) {
    return absl::FailedPreconditionError("tenant: differs from the session's");
  }
  if (attributes_.durability < request.durability) {
    return absl::FailedPreconditionError("durability: the session is in memory");
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
  MutexLock lock(structure_mutex_);
  int64_t highest = 0;
  for (const auto& layer : layers_) highest = std::max(highest, layer->watermark());
  if (position > highest) {
    return absl::OutOfRangeError(
        absl::StrCat("position: ", position, " is beyond the watermark ", highest));
  }
  for (const auto& layer : layers_) layer->Truncate(position);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Session>> Session::Fork(int64_t position, const std::string& new_id,
                                                       const SessionAttributes& attributes) {
  MutexLock lock(structure_mutex_);
  std::shared_ptr<Session> fork(new Session(new_id, fingerprint_, attributes));
  for (const auto& layer : layers_) {
    ATTIC_ASSIGN_OR_RETURN(auto forked, layer->Fork(position));
    fork->layers_.push_back(std::move(forked));
  }
  return fork;
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
