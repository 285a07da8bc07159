// What SessionService and AdminService see of a node's store.
#ifndef ATTIC_SERVER_SERVICE_NODE_SESSION_STORE_H_
#define ATTIC_SERVER_SERVICE_NODE_SESSION_STORE_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "server/cluster/slot_gate.h"
#include "server/session/session_store.h"

namespace attic {

// The store behind a gate. On a node changes to sessions, which here say no epoch, are refused with
// FAILED_PRECONDITION; imports say one and are checked by it. Reads of what is here pass: whoever
// looks on asks this node. Of a store that is no node everything passes. Borrows what it is given.
class NodeSessionStore final : public SessionStore {
 public:
  NodeSessionStore(SessionStore& store, SlotGate& gate) : store_(store), gate_(gate) {}

  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) override;
  absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) override;
  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) override;
  std::vector<SessionDescription> ListSessions(const std::string& after_session_id,
                                               size_t page_size) override;
  absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                 const ForkOptions& options) override;
  absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                     int64_t position) override;
  absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                  absl::Time deadline) override;
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                  uint32_t first_block,
                                                  std::span<const PrefixHash> hashes) override;
  absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) override;
  absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                bool pinned) override;
  absl::Status CloseSession(const std::string& session_id) override;
  absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportSession(
      const std::string& session_id, const ExportOptions& options) override;
  // `admit` is asked first.
  absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportSession(const ImportOptions& options,
                                                              ImportAdmission admit) override;
  absl::StatusOr<AppendAck> Append(const AppendBatch& batch, absl::Time deadline) override;
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override;
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override;
  absl::StatusOr<std::shared_ptr<const Placement>> PlacementOf(
      const std::string& session_id) override;
  std::vector<PlacedSession> ListPlaced(const std::string& after_session_id, size_t page_size,
                                        std::span<const uint32_t> slots) override;
  absl::StatusOr<RowsDigest> DigestRows(const std::string& session_id,
                                        absl::Time deadline) override;
  absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::string& session_id, int64_t begin,
                                                       int64_t end) override;
  // With the epoch of the node's map.
  StoreStatus Status() override;
  size_t CloseEndedSessions() override;
  absl::Status WaitForBuilds(absl::Time deadline) override;

 private:
  // OK in a store that is no node.
  absl::Status CheckMayChange() const;

  SessionStore& store_;
  SlotGate& gate_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_NODE_SESSION_STORE_H_
