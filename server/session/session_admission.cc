#include "server/session/session_admission.h"

#include "base/status_macros.h"
#include "server/session/placement_rules.h"
#include "server/session/validation.h"

namespace attic {

absl::Status CheckDurability(Durability durability, const SessionStoreOptions& options) {
  if (durability == Durability::kMemory || !options.disk.store.directory.empty()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError("durability: this store has no data directory");
}

absl::Status CheckOpen(const OpenSessionRequest& request, const SessionStoreOptions& options) {
  ATTIC_RETURN_IF_ERROR(ValidateOpen(request, options.limits));
  ATTIC_RETURN_IF_ERROR(CheckPlaced(request, options.node_of_cluster));
  return CheckDurability(request.durability, options);
}

}  // namespace attic
