// Asking another node for its cluster map.
#ifndef ATTIC_SERVER_CLUSTER_PEER_MAP_H_
#define ATTIC_SERVER_CLUSTER_PEER_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/membership.h"

namespace attic {

// The map of the node at `address`; null when it knows none newer than `known_epoch`. UNAVAILABLE,
// DEADLINE_EXCEEDED; INVALID_ARGUMENT for an answer that is no map.
absl::StatusOr<ClusterMapPtr> AskForMap(const std::string& address, uint64_t known_epoch,
                                        absl::Time deadline);

// Of the nodes that are not down, but `node_id`.
std::vector<std::string> AddressesOfPeers(const ClusterMap& map, const std::string& node_id);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_PEER_MAP_H_
