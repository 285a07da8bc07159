// What a cluster map means, for people: who holds how much, and what is wrong.
#ifndef ATTIC_CLIENT_CLI_CLUSTER_SUMMARY_H_
#define ATTIC_CLIENT_CLI_CLUSTER_SUMMARY_H_

#include <cstddef>
#include <string>
#include <vector>

#include "api/cluster_map.h"

namespace attic::cli {

struct NodeSummary {
  size_t first = 0;       // slots it is the first replica of
  size_t other = 0;       // the second or third
  size_t incoming = 0;    // being filled
  double share = 0;       // of all replicas that slots have
  double fair_share = 0;  // by capacity, among nodes that are neither down nor draining
};

struct ClusterSummary {
  std::vector<NodeSummary> nodes;  // as in the map
  size_t slots_lost = 0;           // of which no replica is live: not to be read
  size_t slots_short = 0;          // with fewer live replicas than sessions have by default
  size_t slots_moving = 0;         // with nodes that are being filled
};

// Of a valid map.
ClusterSummary SummarizeCluster(const ClusterMap& map);

// One sentence on each thing that is wrong or under way; "all slots ..." when nothing is.
std::vector<std::string> DescribeHealth(const ClusterMap& map, const ClusterSummary& summary);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_CLUSTER_SUMMARY_H_
