// The flags by which a store becomes a node of a cluster.
#ifndef ATTIC_SERVER_CLUSTER_FLAGS_H_
#define ATTIC_SERVER_CLUSTER_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/limits.h"
#include "server/cluster/cluster_options.h"
#include "server/cluster/etcd/etcd_types.h"
#include "server/cluster/placement/next_map.h"

namespace attic {

struct ClusterFlags {
  std::string cluster;
  std::string node_id;    // empty: the host's name
  std::string advertise;  // empty: as the store listens
  std::string zone;
  uint64_t capacity = 0;  // bytes; 0: the memory limit
  std::string file;
  EtcdOptions etcd;
  double lease_seconds = 5;
  bool probe_nodes = true;
  PlacementOptions placement;
  double replace_after_seconds = 300;
  size_t initial_nodes = 1;
  double repair_mib_per_second = 256;
};

void AddClusterFlags(CLI::App& app, ClusterFlags& flags);

// With the limits of the store and its data directory; empty: it has none. INVALID_ARGUMENT names
// the flag.
absl::StatusOr<ClusterOptions> MakeClusterOptions(const ClusterFlags& flags, const Limits& limits,
                                                  const std::string& data_directory);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_FLAGS_H_
