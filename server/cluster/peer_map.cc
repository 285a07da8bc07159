#include "server/cluster/peer_map.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "api/limits.h"
#include "attic/v1/cluster.grpc.pb.h"
#include "base/status_macros.h"
#include "wire/channel.h"
#include "wire/convert_cluster.h"

namespace attic {

absl::StatusOr<ClusterMapPtr> AskForMap(const std::string& address, uint64_t known_epoch,
                                        absl::Time deadline) {
  // Of its own, so that a connection that hangs is not met again.
  const auto stub =
      v1::ClusterService::NewStub(wire::MakeChannel(address, Limits().message_bytes_max));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::GetMapRequest request;
  request.set_known_epoch(known_epoch);
  v1::GetMapResponse response;
  ATTIC_RETURN_IF_ERROR(wire::FromGrpc(stub->GetMap(&context, request, &response)));
  if (!response.has_map()) return ClusterMapPtr();
  ATTIC_ASSIGN_OR_RETURN(ClusterMap map, wire::FromWire(response.map()));
  return std::make_shared<const ClusterMap>(std::move(map));
}

std::vector<std::string> AddressesOfPeers(const ClusterMap& map, const std::string& node_id) {
  std::vector<std::string> addresses;
  for (const ClusterNode& node : map.nodes) {
    if (node.id != node_id && node.state != NodeState::kDown) addresses.push_back(node.address);
  }
  return addresses;
}

}  // namespace attic
