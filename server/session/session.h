// One session: the stored layers of one sequence of tokens.
#ifndef ATTIC_SERVER_SESSION_SESSION_H_
#define ATTIC_SERVER_SESSION_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "server/index/head_index.h"
#include "server/session/lease.h"
#include "server/session/session_attributes.h"
#include "server/session/stored_layer.h"

namespace attic {

// Thread-safe. Lives as long as a call holds it, even after it left the catalogue.
class Session {
 public:
  // The request has been validated and its id is not empty. RESOURCE_EXHAUSTED when the budget has
  // no room.
  static absl::StatusOr<std::shared_ptr<Session>> Create(
      const OpenSessionRequest& request, const IndexOptions& options,
      const std::shared_ptr<MemoryBudget>& budget);

  const std::string& id() const { return id_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }
  const SessionAttributes& attributes() const { return attributes_; }
  Lease& lease() { return lease_; }
  const Lease& lease() const { return lease_; }
  const std::vector<std::unique_ptr<StoredLayer>>& layers() const { return layers_; }

  // FAILED_PRECONDITION naming what differs from this session.
  absl::Status CheckSame(const OpenSessionRequest& request) const;

  // INVALID_ARGUMENT when the layer is not stored.
  absl::StatusOr<StoredLayer*> FindLayer(uint32_t layer) const;

  // Forgets positions >= position in every layer. OUT_OF_RANGE when no layer reaches `position`.
  absl::Status Truncate(int64_t position);

  // A session of id `new_id` holding [0, position). OUT_OF_RANGE when a layer holds less.
  absl::StatusOr<std::shared_ptr<Session>> Fork(int64_t position, const std::string& new_id,
                                                const SessionAttributes& attributes);

  int64_t watermark() const;  // smallest over layers
  SessionDescription Describe() const;
  std::vector<HeadPlan> Plan() const;  // in order of layer, then of kv head

 private:
  Session(std::string id, const Fingerprint& fingerprint, const SessionAttributes& attributes)
      : id_(std::move(id)),
        fingerprint_(fingerprint),
        attributes_(attributes),
        lease_(attributes.ttl_seconds) {}

  const std::string id_;
  const Fingerprint fingerprint_;
  const SessionAttributes attributes_;
  Lease lease_;
  // In order of layer; constant after construction.
  std::vector<std::unique_ptr<StoredLayer>> layers_;
  // Truncations and forks take turns, so that a fork has the same history in every layer.
  Mutex structure_mutex_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_H_
