// The metrics of a node of a cluster, as server/metrics/METRICS.md lists them.
#ifndef ATTIC_SERVER_METRICS_NODE_METRICS_H_
#define ATTIC_SERVER_METRICS_NODE_METRICS_H_

#include "server/metrics/metric_writer.h"
#include "server/service/node_activity.h"

namespace attic {

// Before the node knows a map, or is in it, what a map would say is 0, and what would name the node
// has no series. What is said of etcd and of the controller has none without etcd.
void WriteNode(const NodeActivity& node, MetricWriter& writer);

}  // namespace attic

#endif  // ATTIC_SERVER_METRICS_NODE_METRICS_H_
