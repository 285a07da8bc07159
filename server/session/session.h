// One session: the stored layers of one sequence of tokens.
#ifndef ATTIC_SERVER_SESSION_SESSION_H_
#define ATTIC_SERVER_SESSION_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"
#include "base/memory_budget.h"
#include "base/mutex.h"
#include "base/turn.h"
#include "server/index/head_index.h"
#include "server/session/block_digests.h"
#include "server/session/lease.h"
#include "server/session/session_attributes.h"
#include "server/session/stored_layer.h"
#include "server/session/tenant_budgets.h"
#include "server/storage/durable_store.h"

namespace attic {

// What sessions are made of and charged to.
struct SessionResources {
  IndexOptions index;
  std::shared_ptr<MemoryBudget> budget;
  std::shared_ptr<DurableStore> disk;      // null: sessions in memory only
  std::function<void()> on_disk_write;     // something was written that is not durable yet
  std::shared_ptr<TenantBudgets> tenants;  // null: all are charged to `budget`

  // The same with the tenant's budget.
  SessionResources Of(const std::string& tenant) const;
};

// Thread-safe. Lives as long as a call holds it, even after it left the catalogue.
class Session {
 public:
  // The request has been validated and its id is not empty. RESOURCE_EXHAUSTED when the budget has
  // no room; for durable sessions also errors of DurableStore::CreateSession.
  static absl::StatusOr<std::shared_ptr<Session>> Create(const OpenSessionRequest& request,
                                                         const SessionResources& resources);

  // The same without anything on disk: to be filled through its layers before anybody uses it, and
  // to be put on disk then if it is durable.
  static absl::StatusOr<std::shared_ptr<Session>> CreateEmpty(const OpenSessionRequest& request,
                                                              const SessionResources& resources);
  // Records a durable session that is not on disk, whose layers hold what `layers` says. Errors of
  // DurableStore::CreateSession.
  absl::Status PutOnDisk(std::span<const LayerState> layers);

  // A session that is on disk, still empty: not usable but through its layers until
  // FinishRecovery, which says what it holds or why it cannot be used.
  static absl::StatusOr<std::shared_ptr<Session>> Recover(const SessionRecord& record,
                                                          const SessionResources& resources);
  enum class State : uint8_t { kRecovering, kServing, kDamaged, kFailed };
  void FinishRecovery(State state, absl::Status why);
  State state() const;

  // OK when the session may be changed. UNAVAILABLE while it is recovered or when its disk failed;
  // DATA_LOSS while what follows its watermark is damaged, until it is truncated.
  absl::Status CheckChangeable() const;
  // OK when queries for positions below `end` can be answered, at most what the session holds in
  // the end; errors as of CheckChangeable.
  absl::Status CheckReadable(int64_t end, int64_t watermark) const;

  const std::string& id() const { return id_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }
  const SessionAttributes& attributes() const { return attributes_; }
  Lease& lease() { return lease_; }
  const Lease& lease() const { return lease_; }
  // As Save wrote them last, of a session that was recovered.
  const std::vector<PrefixHash>& recovered_hashes() const { return recovered_hashes_; }
  const std::vector<std::unique_ptr<StoredLayer>>& layers() const { return layers_; }

  // FAILED_PRECONDITION naming what differs from this session.
  absl::Status CheckSame(const OpenSessionRequest& request) const;

  // INVALID_ARGUMENT when the layer is not stored.
  absl::StatusOr<StoredLayer*> FindLayer(uint32_t layer) const;

  // While it is held, the session is neither truncated nor forked, nor what is on disk changed.
  Turn::Holder HoldStructure() { return structure_turn_.Take(); }

  // Of blocks of kDigestBlockTokens rows.
  BlockDigests& block_digests() const { return block_digests_; }

  // Forgets positions >= position in every layer; in a durable session for good when it returns.
  // OUT_OF_RANGE when no layer reaches `position`; errors of the disk, then nothing changed.
  absl::Status Truncate(int64_t position);

  // A session of id `new_id` holding [0, position). OUT_OF_RANGE when a layer holds less; errors of
  // the disk.
  absl::StatusOr<std::shared_ptr<Session>> Fork(int64_t position, const std::string& new_id,
                                                const SessionAttributes& attributes);

  // Records whether the session is pinned, and the hashes of its blocks, which hashes() returns.
  // Nothing to do in memory. Durable when it returns; errors of the disk.
  absl::Status Save(const std::function<std::vector<PrefixHash>()>& hashes);

  // Forgets what is on disk; nothing is written any more. Errors of DurableStore::RemoveSession.
  absl::Status RemoveFromDisk();

  int64_t watermark() const;  // smallest over layers
  SessionDescription Describe() const;
  std::vector<HeadPlan> Plan() const;  // in order of layer, then of kv head

 private:
  Session(std::string id, const Fingerprint& fingerprint, const SessionAttributes& attributes,
          const SessionResources& resources)
      : id_(std::move(id)),
        fingerprint_(fingerprint),
        attributes_(attributes),
        lease_(attributes.ttl_seconds),
        resources_(resources) {}

  bool durable() const { return attributes_.durability == Durability::kDurable; }
  SessionRecord Record(const std::vector<PrefixHash>& hashes) const;
  void AttachDisks(const std::vector<std::vector<size_t>>& disk_segments);
  absl::Status CutOnDisk(int64_t position);

  const std::string id_;
  const Fingerprint fingerprint_;
  const SessionAttributes attributes_;
  Lease lease_;
  std::vector<PrefixHash> recovered_hashes_;  // constant after construction
  const SessionResources resources_;
  uint64_t disk_key_ = 0;  // 0: not on disk
  // In order of layer; constant after construction.
  std::vector<std::unique_ptr<StoredLayer>> layers_;
  // Truncations and forks take turns, so that a fork has the same history in every layer.
  Turn structure_turn_;
  mutable BlockDigests block_digests_;

  mutable Mutex state_mutex_;
  State state_ ATTIC_GUARDED_BY(state_mutex_) = State::kServing;
  absl::Status why_ ATTIC_GUARDED_BY(state_mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_H_
