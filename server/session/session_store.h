// All sessions of one store process: the whole server without the network.
#ifndef ATTIC_SERVER_SESSION_SESSION_STORE_H_
#define ATTIC_SERVER_SESSION_SESSION_STORE_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "base/thread_pool.h"
#include "server/session/session_store_options.h"
#include "server/session/shard_view.h"
#include "server/session/snapshot_stream.h"

namespace attic {

// Thread-safe. Checks every argument: errors name the field or the limit, and nothing is
// half-applied. No lock is held while vectors are scanned or segments are built.
class SessionStore {
 public:
  // A store without a data directory. Queries run on `query_pool`, if given, instead of
  // options.threads of the store's own.
  static std::unique_ptr<SessionStore> Create(const SessionStoreOptions& options,
                                              std::shared_ptr<ThreadPool> query_pool = nullptr);
  // A store of any kind. With a data directory it serves at once, while sessions are read from it:
  // see Status().recovering_sessions. Errors of DurableStore::Open.
  static absl::StatusOr<std::unique_ptr<SessionStore>> Open(
      const SessionStoreOptions& options, std::shared_ptr<ThreadPool> query_pool = nullptr);
  virtual ~SessionStore() = default;

  virtual absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) = 0;
  virtual absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) = 0;
  // How queries of every head are answered, in order of layer, then of kv head.
  virtual absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) = 0;
  // Sessions with ids after `after_session_id`, in order of id, at most `page_size`.
  virtual std::vector<SessionDescription> ListSessions(const std::string& after_session_id,
                                                       size_t page_size) = 0;
  virtual absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                         const ForkOptions& options) = 0;
  virtual absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                             int64_t position) = 0;
  // Returns when everything appended before the call is durable. FAILED_PRECONDITION for a session
  // in memory.
  virtual absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                          absl::Time deadline) = 0;
  // Registers the hashes of the blocks from the first_block'th on (api/prefix_hashes.h).
  // ALREADY_EXISTS when one registered before differs, OUT_OF_RANGE beyond their number.
  virtual absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                          uint32_t first_block,
                                                          std::span<const PrefixHash> hashes) = 0;
  // A lease runs for ttl_seconds from now on; see proto/attic/v1/session.proto.
  virtual absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) = 0;
  virtual absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                        bool pinned) = 0;
  virtual absl::Status CloseSession(const std::string& session_id) = 0;

  // A snapshot of what the session holds now; appends go on meanwhile. RESOURCE_EXHAUSTED when
  // kSnapshotsMax are being written or read; UNAVAILABLE while the session is read from disk;
  // OUT_OF_RANGE when options.position is beyond the watermark.
  static constexpr size_t kSnapshotsMax = 16;
  absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportSession(const std::string& session_id) {
    return ExportSession(session_id, ExportOptions());
  }
  virtual absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportSession(
      const std::string& session_id, const ExportOptions& options) = 0;
  // Makes a session of a snapshot, which says its tenant and lease, and its placement unless
  // options do. ALREADY_EXISTS when the id is
  // taken, which is found out as soon as it is known.
  absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportSession(const ImportOptions& options) {
    return ImportSession(options, nullptr);
  }
  virtual absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportSession(const ImportOptions& options,
                                                                      ImportAdmission admit) = 0;

  // Idempotent by position: see proto/attic/v1/attention.proto. Waits (up to `deadline`) while the
  // layer has more than limits.pending_segments_max segments waiting for the builder; then
  // DEADLINE_EXCEEDED.
  virtual absl::StatusOr<AppendAck> Append(const AppendBatch& batch, absl::Time deadline) = 0;

  // One answer per item, in order; items and kv heads run in parallel. An item's failure is in its
  // answer's status; the call as a whole fails only when the batch is over a limit.
  virtual absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                           absl::Time deadline) = 0;
  virtual absl::StatusOr<SearchAnswer> Search(const SearchRequest& request,
                                              absl::Time deadline) = 0;

  // For nodes of a cluster. None of these renews a lease, nor copies more than it returns.

  // Where a session belongs, cheaply; null for one without a placement. NOT_FOUND.
  virtual absl::StatusOr<std::shared_ptr<const Placement>> PlacementOf(
      const std::string& session_id) = 0;
  // Sessions with a placement in one of `slots` (in order; empty: any), with ids after
  // `after_session_id`, in order of id, at most `page_size`.
  virtual std::vector<PlacedSession> ListPlaced(const std::string& after_session_id,
                                                size_t page_size,
                                                std::span<const uint32_t> slots) = 0;
  // See server/session/shard_rows.h. At most kRowReadersMax readers at a time, beyond which
  // RESOURCE_EXHAUSTED.
  static constexpr size_t kRowReadersMax = 32;
  virtual absl::StatusOr<RowsDigest> DigestRows(const std::string& session_id,
                                                absl::Time deadline) = 0;
  virtual absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::string& session_id,
                                                               int64_t begin, int64_t end) = 0;

  virtual StoreStatus Status() = 0;

  // Closes the sessions in memory whose lease has ended, and returns how many. The store does so by
  // itself every sweep_interval.
  virtual size_t CloseEndedSessions() = 0;

  // Returns when every session was read from disk and no segment is waiting to be built or written,
  // or DEADLINE_EXCEEDED.
  virtual absl::Status WaitForBuilds(absl::Time deadline) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_STORE_H_
