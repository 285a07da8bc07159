// What may be in a store that is a node of a cluster, and in one that is none.
#ifndef ATTIC_SERVER_SESSION_PLACEMENT_RULES_H_
#define ATTIC_SERVER_SESSION_PLACEMENT_RULES_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "api/types.h"

namespace attic {

// Of a valid request. FAILED_PRECONDITION when a store in no cluster is asked for a shard or
// anything with a placement, or a node for a session without; INVALID_ARGUMENT when id, shape and
// placement contradict each other. Whether the slot is right, and here, is not looked at.
absl::Status CheckPlaced(const OpenSessionRequest& request, bool node_of_cluster);

// A fork of a shard is the same shard of another session; manifests are not forked, for their slots
// differ. INVALID_ARGUMENT, FAILED_PRECONDITION.
absl::Status CheckForkPlaced(const std::string& session_id, const std::string& new_session_id,
                             const std::optional<Placement>& placement);

// FAILED_PRECONDITION for a manifest, which holds no tokens.
absl::Status CheckHoldsTokens(const std::string& session_id,
                              const std::optional<Placement>& placement);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_PLACEMENT_RULES_H_
