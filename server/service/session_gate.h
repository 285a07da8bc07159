// The gate for requests that name a session.
#ifndef ATTIC_SERVER_SERVICE_SESSION_GATE_H_
#define ATTIC_SERVER_SERVICE_SESSION_GATE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/types.h"
#include "server/cluster/slot_gate.h"
#include "server/session/session_store.h"

namespace attic {

// OK when the request of `pass` may change, or read, the session; see SlotPass. Of a store that is
// no node always. FAILED_PRECONDITION for a session without a placement on a node.
absl::Status CheckSessionWrite(SessionStore& store, const SlotPass& pass,
                               const std::string& session_id);
absl::Status CheckSessionRead(SessionStore& store, const SlotPass& pass,
                              const std::string& session_id);

// Tells repair when `status`, of an append to the session or of reading it, says that something is
// missing here, or differs from what others have.
void NotifyOfGap(const SlotGate& gate, const std::string& session_id, const absl::Status& status);

// Of a session that is about to be made: CheckWrite, and INVALID_ARGUMENT when its slot is not the
// one that its id and its key hash to.
absl::Status CheckNewSession(const SlotPass& pass, const std::string& session_id,
                             const Placement& placement);

// Of a change to a session by a request that says no epoch: FAILED_PRECONDITION on a node, OK of a
// store that is none.
absl::Status CheckChangesPassed(const SlotGate& gate);

// SessionStore::ExportSession. On a node a request that says an epoch in `options` passes the gate
// as a read; one that says none, as other nodes send, takes what is here.
absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportThroughGate(SessionStore& store,
                                                                  SlotGate& gate,
                                                                  const std::string& session_id,
                                                                  const ExportOptions& options);

// SessionStore::ImportSession for a request that says an epoch in `options`. On a node it passes
// the gate now, so that nobody sends what cannot be taken, and as CheckNewSession when the snapshot
// says what it is. Both outlive the result.
absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportThroughGate(SessionStore& store, SlotGate& gate,
                                                                const ImportOptions& options);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_SESSION_GATE_H_
