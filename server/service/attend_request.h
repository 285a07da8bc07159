// Answers the messages of attic.v1.AttentionService from a store. No gRPC: a function of the
// message.
#ifndef ATTIC_SERVER_SERVICE_ATTEND_REQUEST_H_
#define ATTIC_SERVER_SERVICE_ATTEND_REQUEST_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attic/v1/attention.pb.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/session/session_store.h"

namespace attic {

// Who answers, repeated in every response, and whom.
struct StoreIdentity {
  std::string boot_id;
  SlotGate& gate;
};

// Fills `response`, except its error, which is the returned status: that of the request as a whole.
// Items fail on their own, also when the gate keeps their session's slot from being read. The
// earlier of `deadline` and the request's budget, counted from `arrival`, ends the exact part.
// Records items, answered or not, in `metrics`.
absl::Status AnswerAttend(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::AttendRequest& request, absl::Time arrival, absl::Time deadline,
                          v1::AttendResponse& response);

// Likewise; records what was read.
absl::Status AnswerSearch(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::SearchRequest& request, absl::Time deadline,
                          v1::SearchResponse& response);

// Takes in one batch when the gate lets its session's slot be written. Errors as of
// SessionStore::Append. Fills epoch and boot id of `response`, and, when it returns OK, the
// watermarks; then records the tokens.
absl::Status AnswerAppend(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::AppendRequest& request, absl::Time deadline,
                          v1::AppendResponse& response);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_ATTEND_REQUEST_H_
