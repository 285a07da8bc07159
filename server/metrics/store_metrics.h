// The metrics of a store, as server/metrics/METRICS.md lists them.
#ifndef ATTIC_SERVER_METRICS_STORE_METRICS_H_
#define ATTIC_SERVER_METRICS_STORE_METRICS_H_

#include "api/types.h"
#include "server/metrics/metric_writer.h"
#include "server/service/call_metrics.h"
#include "server/service/store_server.h"

namespace attic {

// All of the following, and, of a node of a cluster, what WriteNode does.
void WriteStoreMetrics(StoreServer& server, MetricWriter& writer);

// What the store holds.
void WriteStatus(const StoreStatus& status, MetricWriter& writer);
// What it was asked since its start. Codes that no call ended with have no series.
void WriteCalls(const CallMetrics& calls, MetricWriter& writer);
// What it is doing.
void WriteActivity(const ServerActivity& activity, MetricWriter& writer);

}  // namespace attic

#endif  // ATTIC_SERVER_METRICS_STORE_METRICS_H_
