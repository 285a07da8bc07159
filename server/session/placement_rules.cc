#include "server/session/placement_rules.h"

#include "absl/strings/str_cat.h"
#include "api/shard.h"

namespace attic {
namespace {

absl::Status CheckShard(const OpenSessionRequest& request, const ShardId& shard) {
  if (request.fingerprint.kv_heads != 1) {
    return absl::InvalidArgumentError("fingerprint.kv_heads: a shard has one");
  }
  if (request.stored_layers.size() != 1 || request.stored_layers.front() != shard.layer) {
    return absl::InvalidArgumentError("stored_layers: not the layer that the shard's id names");
  }
  if (request.placement->kv_head != shard.kv_head || request.placement->block != shard.block) {
    return absl::InvalidArgumentError("placement: of another shard than the id names");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPlaced(const OpenSessionRequest& request, bool node_of_cluster) {
  const std::optional<ShardName> shard = ParseShardSessionId(request.session_id);
  if (!node_of_cluster) {
    if (!shard.has_value() && !request.placement.has_value()) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "placement: this store is no node of a cluster and keeps whole sessions");
  }
  if (!request.placement.has_value()) {
    return absl::FailedPreconditionError(
        "placement: this store is a node of a cluster, which a cluster client opens sessions in");
  }
  if (request.session_id.empty()) {
    return absl::InvalidArgumentError("session_id: a node of a cluster chooses none");
  }
  if (shard.has_value()) return CheckShard(request, shard->shard);
  if (request.placement->kv_head != 0 || request.placement->block != 0) {
    return absl::InvalidArgumentError("placement: of a shard, but the id is a manifest's");
  }
  return absl::OkStatus();
}

absl::Status CheckForkPlaced(const std::string& session_id, const std::string& new_session_id,
                             const std::optional<Placement>& placement) {
  const std::optional<ShardName> source = ParseShardSessionId(session_id);
  const std::optional<ShardName> fork = ParseShardSessionId(new_session_id);
  if (placement.has_value() && !source.has_value()) {
    return absl::FailedPreconditionError("session_id: a manifest is not forked but opened anew");
  }
  if (source.has_value() == fork.has_value() &&
      (!source.has_value() || source->shard == fork->shard)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("new_session_id: ", new_session_id, " is not the same shard as the source"));
}

absl::Status CheckHoldsTokens(const std::string& session_id,
                              const std::optional<Placement>& placement) {
  if (!placement.has_value() || ParseShardSessionId(session_id).has_value()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "session_id: ", session_id,
      " is spread over a cluster, and only its manifest is here: use a cluster client"));
}

}  // namespace attic
