#include "server/service/node_session_store.h"

#include <utility>

#include "base/status_macros.h"
#include "server/service/session_gate.h"

namespace attic {

absl::Status NodeSessionStore::CheckMayChange() const {
  if (!gate_.clustered()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this store is a node of a cluster, where sessions have replicas: use a cluster client");
}

absl::StatusOr<SessionDescription> NodeSessionStore::OpenSession(
    const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.OpenSession(request);
}

absl::StatusOr<SessionDescription> NodeSessionStore::DescribeSession(
    const std::string& session_id) {
  return store_.DescribeSession(session_id);
}

absl::StatusOr<std::vector<HeadPlan>> NodeSessionStore::PlanSession(const std::string& session_id) {
  return store_.PlanSession(session_id);
}

std::vector<SessionDescription> NodeSessionStore::ListSessions(const std::string& after_session_id,
                                                               size_t page_size) {
  return store_.ListSessions(after_session_id, page_size);
}

absl::StatusOr<SessionDescription> NodeSessionStore::ForkSession(const std::string& session_id,
                                                                 const ForkOptions& options) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.ForkSession(session_id, options);
}

absl::StatusOr<SessionDescription> NodeSessionStore::TruncateSession(const std::string& session_id,
                                                                     int64_t position) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.TruncateSession(session_id, position);
}

absl::StatusOr<SessionDescription> NodeSessionStore::FlushSession(const std::string& session_id,
                                                                  absl::Time deadline) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.FlushSession(session_id, deadline);
}

absl::StatusOr<SessionDescription> NodeSessionStore::ExtendPrefix(
    const std::string& session_id, uint32_t first_block, std::span<const PrefixHash> hashes) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.ExtendPrefix(session_id, first_block, hashes);
}

absl::StatusOr<SessionDescription> NodeSessionStore::RenewLease(const std::string& session_id) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.RenewLease(session_id);
}

absl::StatusOr<SessionDescription> NodeSessionStore::PinSession(const std::string& session_id,
                                                                bool pinned) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.PinSession(session_id, pinned);
}

absl::Status NodeSessionStore::CloseSession(const std::string& session_id) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.CloseSession(session_id);
}

absl::StatusOr<std::unique_ptr<SnapshotSource>> NodeSessionStore::ExportSession(
    const std::string& session_id, const ExportOptions& options) {
  if (gate_.clustered() && options.epoch > 0) {
    ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, gate_.Admit(options.epoch));
    ATTIC_RETURN_IF_ERROR(CheckSessionRead(store_, pass, session_id));
  }
  return store_.ExportSession(session_id, options);
}

absl::StatusOr<std::unique_ptr<SnapshotSink>> NodeSessionStore::ImportSession(
    const ImportOptions& options, ImportAdmission admit) {
  // Now, so that nobody sends what cannot be taken, and again when the snapshot says what it is.
  ATTIC_RETURN_IF_ERROR(gate_.Admit(options.epoch).status());
  if (!gate_.clustered()) return store_.ImportSession(options, std::move(admit));
  return store_.ImportSession(
      options,
      [this, epoch = options.epoch,
       admit = std::move(admit)](const OpenSessionRequest& request) -> absl::Status {
        if (admit != nullptr) ATTIC_RETURN_IF_ERROR(admit(request));
        ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, gate_.Admit(epoch));
        if (!request.placement.has_value()) {
          return absl::FailedPreconditionError(
              "placement: the snapshot has none, and this store is a node of a cluster");
        }
        return CheckNewSession(pass, request.session_id, *request.placement);
      });
}

absl::StatusOr<AppendAck> NodeSessionStore::Append(const AppendBatch& batch, absl::Time deadline) {
  ATTIC_RETURN_IF_ERROR(CheckMayChange());
  return store_.Append(batch, deadline);
}

absl::StatusOr<std::vector<AttendAnswer>> NodeSessionStore::Attend(
    std::span<const AttendItem> items, absl::Time deadline) {
  return store_.Attend(items, deadline);
}

absl::StatusOr<SearchAnswer> NodeSessionStore::Search(const SearchRequest& request,
                                                      absl::Time deadline) {
  return store_.Search(request, deadline);
}

absl::StatusOr<std::shared_ptr<const Placement>> NodeSessionStore::PlacementOf(
    const std::string& session_id) {
  return store_.PlacementOf(session_id);
}

std::vector<PlacedSession> NodeSessionStore::ListPlaced(const std::string& after_session_id,
                                                        size_t page_size,
                                                        std::span<const uint32_t> slots) {
  return store_.ListPlaced(after_session_id, page_size, slots);
}

absl::StatusOr<RowsDigest> NodeSessionStore::DigestRows(const std::string& session_id,
                                                        absl::Time deadline) {
  return store_.DigestRows(session_id, deadline);
}

absl::StatusOr<std::unique_ptr<RowsSource>> NodeSessionStore::ReadRows(
    const std::string& session_id, int64_t begin, int64_t end) {
  return store_.ReadRows(session_id, begin, end);
}

StoreStatus NodeSessionStore::Status() {
  StoreStatus status = store_.Status();
  status.epoch = gate_.epoch();
  return status;
}

size_t NodeSessionStore::CloseEndedSessions() { return store_.CloseEndedSessions(); }

absl::Status NodeSessionStore::WaitForBuilds(absl::Time deadline) {
  return store_.WaitForBuilds(deadline);
}

}  // namespace attic
