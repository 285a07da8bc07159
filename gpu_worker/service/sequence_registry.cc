#include "gpu_worker/service/sequence_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attic::worker {

SequenceRegistry::Lease::~Lease() {
  if (registry_ == nullptr) return;
  MutexLock lock(registry_->mutex_);
  registry_->sequences_[id_] = std::move(sequence_);
}

std::unique_ptr<Sequence> SequenceRegistry::Lease::Remove() && {
  SequenceRegistry* registry = std::exchange(registry_, nullptr);
  MutexLock lock(registry->mutex_);
  registry->sequences_.erase(id_);
  return std::move(sequence_);
}

SequenceRegistry::Place::~Place() {
  if (registry_ == nullptr) return;
  MutexLock lock(registry_->mutex_);
  if (id_.empty()) {
    --registry_->unnamed_places_;
  } else {
    registry_->sequences_.erase(id_);
  }
}

absl::Status SequenceRegistry::Place::Fill(std::unique_ptr<Sequence> sequence) && {
  SequenceRegistry* registry = std::exchange(registry_, nullptr);
  const std::string id = sequence->id();
  MutexLock lock(registry->mutex_);
  if (id_.empty()) {
    --registry->unnamed_places_;
    if (registry->sequences_.contains(id)) {
      return absl::AlreadyExistsError(absl::StrCat("session_id: ", id, " is open"));
    }
  }
  registry->sequences_[id] = std::move(sequence);
  return absl::OkStatus();
}

absl::StatusOr<SequenceRegistry::Place> SequenceRegistry::Reserve(const std::string& id,
                                                                  const std::string& field) {
  MutexLock lock(mutex_);
  if (!id.empty() && sequences_.contains(id)) {
    return absl::AlreadyExistsError(absl::StrCat(field, ": ", id, " is open"));
  }
  if (sequences_.size() + unnamed_places_ >= sequences_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the worker has sequences_max (", sequences_max_, ") sequences open"));
  }
  if (id.empty()) {
    ++unnamed_places_;
  } else {
    sequences_[id] = nullptr;
  }
  return Place(this, id);
}

absl::StatusOr<SequenceRegistry::Lease> SequenceRegistry::Acquire(const std::string& id) {
  MutexLock lock(mutex_);
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    return absl::NotFoundError(
        absl::StrCat("session_id: no sequence ", id.substr(0, 128), " is open"));
  }
  if (found->second == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("session_id: another call is using sequence ", id));
  }
  return Lease(this, id, std::move(found->second));
}

}  // namespace attic::worker
