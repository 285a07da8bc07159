#include "server/service/session_gate.h"

#include "absl/strings/str_cat.h"
#include "api/shard.h"
#include "base/status_macros.h"
#include "server/cluster/cluster_options.h"

namespace attic {
namespace {

template <typename Check>
absl::Status CheckSession(SessionStore& store, const SlotPass& pass, const std::string& session_id,
                          const Check& check) {
  if (!pass.clustered()) return absl::OkStatus();
  const auto placement = store.PlacementOf(session_id);
  if (absl::IsNotFound(placement.status())) return pass.Missing(placement.status());
  ATTIC_RETURN_IF_ERROR(placement.status());
  if (*placement == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("session_id: ", session_id,
                     " has no placement: it was made before this store joined a ", "cluster"));
  }
  return check(**placement);
}

}  // namespace

absl::Status CheckSessionWrite(SessionStore& store, const SlotPass& pass,
                               const std::string& session_id) {
  return CheckSession(store, pass, session_id,
                      [&pass](const Placement& placement) { return pass.CheckWrite(placement); });
}

absl::Status CheckSessionRead(SessionStore& store, const SlotPass& pass,
                              const std::string& session_id) {
  return CheckSession(store, pass, session_id,
                      [&pass](const Placement& placement) { return pass.CheckRead(placement); });
}

void NotifyOfGap(const SlotGate& gate, const std::string& session_id, const absl::Status& status) {
  if (status.ok()) return;
  NodeRepair* const repair = gate.repair();
  if (repair == nullptr) return;
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      repair->NotifyGap(session_id);
      break;
    default:
      break;
  }
}

absl::Status CheckNewSession(const SlotPass& pass, const std::string& session_id,
                             const Placement& placement) {
  if (!pass.clustered()) return absl::OkStatus();
  ATTIC_RETURN_IF_ERROR(pass.CheckWrite(placement));
  const std::optional<ShardName> shard = ParseShardSessionId(session_id);
  const uint32_t slot = shard.has_value()
                            ? SlotOfShard(placement.key, shard->shard, pass.slot_count())
                            : SlotOfManifest(session_id, pass.slot_count());
  if (slot == placement.slot) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("placement.slot: ", placement.slot, ", but ",
                                                 session_id, " belongs in slot ", slot));
}

absl::Status CheckChangesPassed(const SlotGate& gate) {
  if (!gate.clustered()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this store is a node of a cluster, where sessions have replicas: use a cluster client");
}

absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportThroughGate(SessionStore& store,
                                                                  SlotGate& gate,
                                                                  const std::string& session_id,
                                                                  const ExportOptions& options) {
  if (gate.clustered() && options.epoch > 0) {
    ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, gate.Admit(options.epoch));
    ATTIC_RETURN_IF_ERROR(CheckSessionRead(store, pass, session_id));
  }
  return store.ExportSession(session_id, options);
}

absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportThroughGate(SessionStore& store, SlotGate& gate,
                                                                const ImportOptions& options) {
  ATTIC_RETURN_IF_ERROR(gate.Admit(options.epoch).status());
  if (!gate.clustered()) return store.ImportSession(options);
  return store.ImportSession(
      options, [&gate, epoch = options.epoch](const OpenSessionRequest& request) -> absl::Status {
        ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, gate.Admit(epoch));
        if (!request.placement.has_value()) {
          return absl::FailedPreconditionError(
              "placement: the snapshot has none, and this store is a node of a cluster");
        }
        return CheckNewSession(pass, request.session_id, *request.placement);
      });
}

}  // namespace attic
