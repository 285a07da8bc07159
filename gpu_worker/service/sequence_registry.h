// The open sequences of a worker, each used by at most one call at a time.
#ifndef ATTIC_GPU_WORKER_SERVICE_SEQUENCE_REGISTRY_H_
#define ATTIC_GPU_WORKER_SERVICE_SEQUENCE_REGISTRY_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "gpu_worker/model/decoder.h"

namespace attic::worker {

// Thread-safe. Calls wait for nothing: a sequence in use is refused, not queued for.
class SequenceRegistry {
 public:
  explicit SequenceRegistry(size_t sequences_max) : sequences_max_(sequences_max) {}

  // The right to use one sequence; returns it to the registry when destroyed. Must not outlive the
  // registry.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : registry_(std::exchange(other.registry_, nullptr)),
          id_(std::move(other.id_)),
          sequence_(std::move(other.sequence_)) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease();
    Sequence& operator*() const { return *sequence_; }
    Sequence* operator->() const { return sequence_.get(); }
    // Takes the sequence out of the registry for good.
    std::unique_ptr<Sequence> Remove() &&;

   private:
    friend class SequenceRegistry;
    Lease(SequenceRegistry* registry, std::string id, std::unique_ptr<Sequence> sequence)
        : registry_(registry), id_(std::move(id)), sequence_(std::move(sequence)) {}
    SequenceRegistry* registry_;
    std::string id_;
    std::unique_ptr<Sequence> sequence_;
  };

  // A place for a sequence about to be opened; given up when destroyed unfilled.
  class Place {
   public:
    Place(Place&& other) noexcept
        : registry_(std::exchange(other.registry_, nullptr)), id_(std::move(other.id_)) {}
    Place& operator=(Place&&) = delete;
    ~Place();
    // Puts `sequence` in under its own id. ALREADY_EXISTS when the id (chosen by the store) is
    // taken.
    absl::Status Fill(std::unique_ptr<Sequence> sequence) &&;

   private:
    friend class SequenceRegistry;
    Place(SequenceRegistry* registry, std::string id) : registry_(registry), id_(std::move(id)) {}
    SequenceRegistry* registry_;
    std::string id_;  // empty: known once the store has chosen
  };

  // RESOURCE_EXHAUSTED at sequences_max; ALREADY_EXISTS when `id` is taken. `field` is for
  // messages.
  absl::StatusOr<Place> Reserve(const std::string& id, const std::string& field);

  // NOT_FOUND; FAILED_PRECONDITION when another call uses the sequence.
  absl::StatusOr<Lease> Acquire(const std::string& id);

 private:
  const size_t sequences_max_;
  Mutex mutex_;
  // Null while leased or reserved.
  std::map<std::string, std::unique_ptr<Sequence>> sequences_ ATTIC_GUARDED_BY(mutex_);
  size_t unnamed_places_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_SERVICE_SEQUENCE_REGISTRY_H_
