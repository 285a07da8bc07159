#include "server/metrics/queue_metrics.h"

namespace attic {

void WriteQueue(const char* executor, const Executor::Load& load, MetricWriter& writer) {
  const MetricWriter::Labels labels = {{"executor", executor}};
  writer.Gauge("attic_store_queue_length", "Requests that wait for a thread.",
               static_cast<double>(load.queued), labels);
  writer.Gauge("attic_store_queue_limit", "What the queue length may reach.",
               static_cast<double>(load.queued_max), labels);
  writer.Counter("attic_store_queue_refused_total", "Requests refused because the queue was full.",
                 static_cast<double>(load.refused), labels);
}

}  // namespace attic
