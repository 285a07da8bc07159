// Answers the messages of attic.v1.AttentionService from a store. No gRPC: a function of the
// message.
#ifndef ATTIC_SERVER_SERVICE_ATTEND_REQUEST_H_
#define ATTIC_SERVER_SERVICE_ATTEND_REQUEST_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attic/v1/attention.pb.h"
#include "server/service/call_metrics.h"
#include "server/session/session_store.h"

namespace attic {

// Who answers; repeated in every attend response.
struct StoreIdentity {
  std::string boot_id;
  uint64_t epoch = 0;
};

// Fills `response`, except its error, which is the returned status: that of the request as a whole.
// Items fail on their own. The earlier of `deadline` and the request's budget, counted from
// `arrival`, ends the exact part. Records items, answered or not, in `metrics`.
absl::Status AnswerAttend(SessionStore& store, const StoreIdentity& identity, CallMetrics& metrics,
                          const v1::AttendRequest& request, absl::Time arrival, absl::Time deadline,
                          v1::AttendResponse& response);

// FAILED_PRECONDITION when the caller knows another epoch; 0 is any.
absl::Status CheckEpoch(const StoreIdentity& identity, uint64_t epoch);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_ATTEND_REQUEST_H_
