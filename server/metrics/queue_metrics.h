// The metrics of a queue before a pool of threads.
#ifndef ATTIC_SERVER_METRICS_QUEUE_METRICS_H_
#define ATTIC_SERVER_METRICS_QUEUE_METRICS_H_

#include "server/metrics/metric_writer.h"
#include "server/service/executor.h"

namespace attic {

// `executor` is the label's value.
void WriteQueue(const char* executor, const Executor::Load& load, MetricWriter& writer);

}  // namespace attic

#endif  // ATTIC_SERVER_METRICS_QUEUE_METRICS_H_
