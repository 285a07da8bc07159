// What the nodes of a cluster say when all of them are asked at once.
#ifndef ATTIC_CLIENT_CLI_CLUSTER_SURVEY_H_
#define ATTIC_CLIENT_CLI_CLUSTER_SURVEY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "attic/v1/cluster.pb.h"

namespace attic::cli {

struct NodeSurvey {
  uint64_t map_epoch = 0;  // of the map that the node knows; 0 when it did not say
  absl::StatusOr<v1::RepairStatus> repair = absl::UnavailableError("not asked");
};

struct ClusterSurvey {
  ClusterMap map;                 // the newest that a node which was asked knows
  std::vector<NodeSurvey> nodes;  // as in the map; those that are down in it are not asked
};

// Asks those at `servers`, then the nodes of the newest map that they know, and again while one of
// these knows a newer one: a node that was cut off answers with a map of the past. None is waited
// for longer than `node_time`. The error of the last of `servers` when none of them knows a map.
absl::StatusOr<ClusterSurvey> SurveyCluster(const std::vector<std::string>& servers,
                                            absl::Duration node_time);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_CLUSTER_SURVEY_H_
