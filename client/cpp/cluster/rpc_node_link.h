// A node over gRPC: one connection, one attend stream.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_RPC_NODE_LINK_H_
#define ATTIC_CLIENT_CPP_CLUSTER_RPC_NODE_LINK_H_

#include <memory>
#include <string>

#include "api/limits.h"
#include "client/cpp/cluster/node_link.h"

namespace attic {

// Does not wait for the connection; it comes back by itself (client/cpp/rpc.h).
std::unique_ptr<NodeLink> MakeRpcNodeLink(const std::string& address, const Limits& limits);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_RPC_NODE_LINK_H_
