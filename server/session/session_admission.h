// Which sessions a store takes, by what it was started with.
#ifndef ATTIC_SERVER_SESSION_SESSION_ADMISSION_H_
#define ATTIC_SERVER_SESSION_SESSION_ADMISSION_H_

#include "absl/status/status.h"
#include "api/types.h"
#include "server/session/session_store_options.h"

namespace attic {

// FAILED_PRECONDITION when it takes a data directory that the store does not have.
absl::Status CheckDurability(Durability durability, const SessionStoreOptions& options);

// What can be said of a request without looking at other sessions: errors of ValidateOpen,
// CheckPlaced and CheckDurability.
absl::Status CheckOpen(const OpenSessionRequest& request, const SessionStoreOptions& options);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_ADMISSION_H_
