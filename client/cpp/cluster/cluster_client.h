// attic::Client for a cluster.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_CLIENT_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "api/cluster_map.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/node_link.h"

namespace attic {

// `map` is one that a node answered with; `seeds` are addresses that are asked for newer ones
// besides its nodes. Append streams may outlive the client.
std::unique_ptr<Client> MakeClusterClient(const ClientOptions& options, NodeLinkFactory factory,
                                          ClusterMap map, std::vector<std::string> seeds);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_CLIENT_H_
