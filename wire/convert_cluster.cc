#include "wire/convert_cluster.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic::wire {

v1::ClusterNode ToWire(const ClusterNode& node) {
  v1::ClusterNode out;
  out.set_id(node.id);
  out.set_address(node.address);
  out.set_zone(node.zone);
  out.set_capacity(node.capacity);
  out.set_boot_id(node.boot_id);
  out.set_state(static_cast<v1::NodeState>(node.state));
  out.set_draining(node.draining);
  out.set_joining(node.joining);
  out.set_state_epoch(node.state_epoch);
  return out;
}

absl::StatusOr<ClusterNode> FromWire(const v1::ClusterNode& node) {
  ClusterNode out;
  out.id = node.id();
  out.address = node.address();
  out.zone = node.zone();
  out.capacity = node.capacity();
  out.boot_id = node.boot_id();
  out.draining = node.draining();
  out.joining = node.joining();
  out.state_epoch = node.state_epoch();
  switch (node.state()) {
    case v1::NODE_STATE_UNSPECIFIED:
      return out;
    case v1::NODE_STATE_LIVE:
    case v1::NODE_STATE_REPAIRING:
    case v1::NODE_STATE_DOWN:
      out.state = static_cast<NodeState>(node.state());
      return out;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("node.state: unknown state ", static_cast<int>(node.state())));
  }
}

v1::ClusterMap ToWire(const ClusterMap& map) {
  v1::ClusterMap out;
  out.set_cluster(map.cluster);
  out.set_epoch(map.epoch);
  out.set_replicas_default(map.replicas_default);
  out.set_rebalanced(map.rebalanced);
  for (const ClusterNode& node : map.nodes) *out.add_nodes() = ToWire(node);
  for (const SlotAssignment& slot : map.slots) {
    v1::SlotAssignment* const added = out.add_slots();
    added->mutable_replicas()->Assign(slot.replicas.begin(), slot.replicas.end());
    added->mutable_incoming()->Assign(slot.incoming.begin(), slot.incoming.end());
    added->mutable_incoming_ranks()->Assign(slot.incoming_ranks.begin(), slot.incoming_ranks.end());
    added->set_joining(slot.joining);
    added->set_epoch(slot.epoch);
  }
  return out;
}

absl::StatusOr<ClusterMap> FromWire(const v1::ClusterMap& map) {
  ClusterMap out;
  out.cluster = map.cluster();
  out.epoch = map.epoch();
  out.replicas_default = map.replicas_default();
  out.rebalanced = map.rebalanced();
  for (const v1::ClusterNode& node : map.nodes()) {
    ATTIC_ASSIGN_OR_RETURN(out.nodes.emplace_back(), FromWire(node));
  }
  for (const v1::SlotAssignment& slot : map.slots()) {
    out.slots.push_back(
        {.replicas = {slot.replicas().begin(), slot.replicas().end()},
         .incoming = {slot.incoming().begin(), slot.incoming().end()},
         .incoming_ranks = {slot.incoming_ranks().begin(), slot.incoming_ranks().end()},
         .joining = slot.joining(),
         .epoch = slot.epoch()});
  }
  ATTIC_RETURN_IF_ERROR(ValidateClusterMap(out));
  return out;
}

}  // namespace attic::wire
