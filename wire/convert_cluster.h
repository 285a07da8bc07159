// Conversions of what a cluster is, as those of wire/convert.h.
#ifndef ATTIC_WIRE_CONVERT_CLUSTER_H_
#define ATTIC_WIRE_CONVERT_CLUSTER_H_

#include "absl/status/statusor.h"
#include "api/cluster_map.h"
#include "attic/v1/cluster.pb.h"

namespace attic::wire {

v1::ClusterNode ToWire(const ClusterNode& node);
// INVALID_ARGUMENT for a state that is none; an unspecified one is live.
absl::StatusOr<ClusterNode> FromWire(const v1::ClusterNode& node);

v1::ClusterMap ToWire(const ClusterMap& map);
// A map as ValidateClusterMap asks for.
absl::StatusOr<ClusterMap> FromWire(const v1::ClusterMap& map);

}  // namespace attic::wire

#endif  // ATTIC_WIRE_CONVERT_CLUSTER_H_
