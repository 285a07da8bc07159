#include "server/cluster/slot_gate.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace attic {
namespace {

bool Contains(std::span<const uint32_t> nodes, uint32_t node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// The epoch from which on a writer knows of every replica that it has to write to: of the last
// change of the slot, or of the last that came back.
uint64_t WriteEpoch(const ClusterMap& map, const SlotAssignment& slot, uint32_t replicas) {
  uint64_t epoch = slot.epoch;
  for (const uint32_t replica : ReplicasOf(slot, replicas)) {
    const ClusterNode& node = map.nodes[replica];
    if (node.state != NodeState::kDown) epoch = std::max(epoch, node.state_epoch);
  }
  return epoch;
}

bool AnyLive(const ClusterMap& map, std::span<const uint32_t> nodes) {
  return std::any_of(nodes.begin(), nodes.end(),
                     [&](uint32_t node) { return map.nodes[node].state == NodeState::kLive; });
}

}  // namespace

void SlotGate::Join(std::shared_ptr<Membership> membership) {
  ATTIC_CHECK(clustered_ && membership_ == nullptr && membership != nullptr);
  membership_ = std::move(membership);
  joined_.store(membership_.get(), std::memory_order_release);
}

ClusterMapPtr SlotGate::map() const {
  const Membership* const joined = membership();
  return joined == nullptr ? nullptr : joined->map();
}

uint64_t SlotGate::epoch() const { return EpochOf(map()); }

bool SlotGate::ready() const {
  if (!clustered_) return true;
  const ClusterMapPtr known = map();
  if (known == nullptr) return false;
  const int64_t node = known->FindNode(membership()->node_id());
  if (node < 0) return false;
  const ClusterNode& self = known->nodes[static_cast<size_t>(node)];
  return self.state == NodeState::kLive && IsThisProcess(self);
}

absl::Status SlotGate::Refuse(GateRefusal why, absl::Status status) {
  refusals_[static_cast<size_t>(why)].fetch_add(1, std::memory_order_relaxed);
  return status;
}

absl::StatusOr<SlotPass> SlotGate::Admit(uint64_t sender_epoch) {
  SlotPass pass(sender_epoch);
  if (!clustered_) {
    if (sender_epoch == 0) return pass;
    return absl::FailedPreconditionError(absl::StrCat(
        "epoch: ", sender_epoch, " asked for, but this store is no node of a cluster"));
  }
  pass.gate_ = this;
  pass.map_ = map();
  if (pass.map_ == nullptr) {
    return Refuse(GateRefusal::kNoMap,
                  absl::UnavailableError("this node does not know the cluster map yet"));
  }
  if (sender_epoch > pass.map_->epoch) {
    if (want_newer_ != nullptr) want_newer_(sender_epoch);
    return Refuse(GateRefusal::kBehind,
                  absl::UnavailableError(absl::StrCat(
                      "epoch: ", sender_epoch,
                      " asked for, this node does not know it yet and is at ", pass.map_->epoch)));
  }
  const int64_t node = pass.map_->FindNode(membership()->node_id());
  if (node < 0) {
    return Refuse(GateRefusal::kNotHere,
                  absl::AbortedError(absl::StrCat("this node is not in the cluster map of epoch ",
                                                  pass.map_->epoch)));
  }
  pass.node_ = static_cast<uint32_t>(node);
  if (!IsThisProcess(pass.map_->nodes[pass.node_])) {
    return Refuse(GateRefusal::kNoMap,
                  absl::UnavailableError("the cluster does not know yet that this node started"));
  }
  return pass;
}

absl::Status SlotPass::Refuse(GateRefusal why, absl::Status status) const {
  return gate_->Refuse(why, std::move(status));
}

absl::Status SlotPass::CheckWrite(const Placement& placement) const {
  if (map_ == nullptr) return absl::OkStatus();
  std::shared_ptr<const void> writing = writing_;
  if (writing == nullptr) writing = gate_->writes_.Begin(map_->epoch);
  // Looked at behind Begin: whoever found no write under way saw a map that is found here, too.
  if (gate_->epoch() != map_->epoch) {
    return Refuse(GateRefusal::kStaleEpoch,
                  absl::AbortedError(absl::StrCat("stale epoch: ", map_->epoch,
                                                  ", the cluster map has just changed")));
  }
  ATTIC_RETURN_IF_ERROR(Check(placement, Use::kWrite));
  writing_ = std::move(writing);
  return absl::OkStatus();
}

absl::Status SlotPass::CheckRead(const Placement& placement) const {
  return Check(placement, Use::kRead);
}

absl::Status SlotPass::Check(const Placement& placement, Use use) const {
  if (map_ == nullptr) return absl::OkStatus();
  if (placement.slot >= map_->slots.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("placement.slot: ", placement.slot, ", the cluster has ", map_->slots.size()));
  }
  const SlotAssignment& slot = map_->slots[placement.slot];
  const uint32_t replicas =
      placement.replication.replicas == 0 ? map_->replicas_default : placement.replication.replicas;
  const bool write = use == Use::kWrite;
  const uint64_t needed = write ? WriteEpoch(*map_, slot, replicas) : slot.epoch;
  if (sender_epoch_ == 0 ? write : sender_epoch_ < needed) {
    return Refuse(GateRefusal::kStaleEpoch,
                  absl::AbortedError(absl::StrCat("stale epoch: ", sender_epoch_, ", slot ",
                                                  placement.slot, " changed in epoch ", needed)));
  }
  if (map_->nodes[node_].state == NodeState::kDown) {
    return Refuse(GateRefusal::kNotHere,
                  absl::AbortedError(
                      absl::StrCat("this node is down in the cluster map of epoch ", epoch())));
  }
  const bool here =
      Contains(ReplicasOf(slot, replicas), node_) || (write && Contains(slot.incoming, node_));
  if (!here) {
    return Refuse(GateRefusal::kNotHere,
                  absl::AbortedError(
                      absl::StrCat("slot ", placement.slot,
                                   " is not on this node by the cluster map of epoch ", epoch())));
  }
  // What was truncated and written anew while the node was away it may still hold as it was.
  if (!write && map_->nodes[node_].state == NodeState::kRepairing &&
      AnyLive(*map_, ReplicasOf(slot, replicas))) {
    return Refuse(GateRefusal::kNotHere, absl::UnavailableError("this node is not filled yet"));
  }
  return absl::OkStatus();
}

absl::Status SlotPass::Missing(const absl::Status& not_found) const {
  if (map_ == nullptr) return not_found;
  if (sender_epoch_ < map_->epoch) {
    return Refuse(GateRefusal::kStaleEpoch,
                  absl::AbortedError(absl::StrCat("stale epoch: ", sender_epoch_,
                                                  ", the session is not on this node, which is at ",
                                                  map_->epoch)));
  }
  if (map_->nodes[node_].state == NodeState::kLive) return not_found;
  return Refuse(GateRefusal::kNotHere,
                absl::UnavailableError("the session is not on this node, which is not filled yet"));
}

}  // namespace attic
