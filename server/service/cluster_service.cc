#include "server/service/cluster_service.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/service/unary_call.h"
#include "wire/convert_cluster.h"

namespace attic {
namespace {

// How long a change may keep a thread, whatever the caller's patience.
constexpr absl::Duration kChangeWaitMax = absl::Seconds(10);

absl::StatusOr<Membership*> MembershipOf(const SlotGate& gate) {
  if (!gate.clustered()) {
    return absl::FailedPreconditionError("this store is no node of a cluster");
  }
  Membership* const membership = gate.membership();
  if (membership == nullptr) return absl::UnavailableError("this node has not joined its cluster");
  return membership;
}

absl::StatusOr<NodeChange> ChangeOf(const v1::ChangeNodeRequest& request) {
  switch (request.change()) {
    case v1::NODE_CHANGE_ADD:
      return NodeChange::kAdd;
    case v1::NODE_CHANGE_DRAIN:
      return NodeChange::kDrain;
    case v1::NODE_CHANGE_REMOVE:
      return NodeChange::kRemove;
    default:
      return absl::InvalidArgumentError("change: unknown");
  }
}

}  // namespace

grpc::ServerUnaryReactor* ClusterServiceImpl::GetMap(grpc::CallbackServerContext* context,
                                                     const v1::GetMapRequest* request,
                                                     v1::GetMapResponse* response) {
  return ServeUnary(
      context, context_.executor, {context_.metrics, Method::kGetMap},
      [this, request, response](absl::Time) -> absl::Status {
        ATTIC_ASSIGN_OR_RETURN(const Membership* membership, MembershipOf(context_.gate));
        const ClusterMapPtr map = membership->map();
        if (map == nullptr) {
          return absl::UnavailableError("this node does not know the cluster map yet");
        }
        if (map->epoch > request->known_epoch()) *response->mutable_map() = wire::ToWire(*map);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::GetRepair(grpc::CallbackServerContext* context,
                                                        const v1::GetRepairRequest*,
                                                        v1::RepairStatus* response) {
  return ServeUnary(context, context_.executor, {context_.metrics, Method::kGetRepair},
                    [this, response](absl::Time) -> absl::Status {
                      ATTIC_ASSIGN_OR_RETURN(const Membership* membership,
                                             MembershipOf(context_.gate));
                      response->set_node_id(membership->node_id());
                      response->set_controller(membership->controlling());
                      const RepairProgress progress =
                          context_.repair == nullptr ? RepairProgress{} : context_.repair();
                      response->set_synced(progress.node_synced);
                      response->set_shards_left(progress.shards_left);
                      response->set_bytes_pulled(progress.bytes_pulled);
                      response->set_shards_pulled(progress.shards_pulled);
                      response->set_shards_dropped(progress.shards_dropped);
                      response->set_last_error(progress.last_error);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::ChangeNode(grpc::CallbackServerContext* context,
                                                         const v1::ChangeNodeRequest* request,
                                                         v1::ChangeNodeResponse*) {
  return ServeUnary(context, context_.executor, {context_.metrics, Method::kChangeNode},
                    [this, request](absl::Time deadline) -> absl::Status {
                      ATTIC_ASSIGN_OR_RETURN(Membership* const membership,
                                             MembershipOf(context_.gate));
                      ATTIC_ASSIGN_OR_RETURN(const NodeChange change, ChangeOf(*request));
                      return membership->Change(request->node_id(), change,
                                                std::min(deadline, absl::Now() + kChangeWaitMax));
                    });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::Rebalance(grpc::CallbackServerContext* context,
                                                        const v1::RebalanceRequest*,
                                                        v1::RebalanceResponse*) {
  return ServeUnary(
      context, context_.executor, {context_.metrics, Method::kRebalance},
      [this](absl::Time deadline) -> absl::Status {
        ATTIC_ASSIGN_OR_RETURN(Membership* const membership, MembershipOf(context_.gate));
        return membership->Rebalance(std::min(deadline, absl::Now() + kChangeWaitMax));
      });
}

}  // namespace attic
