#include "server/metrics/store_metrics.h"

#include <string>

#include "absl/status/status.h"
#include "server/metrics/node_metrics.h"
#include "server/metrics/queue_metrics.h"

namespace attic {
namespace {

std::string CodeName(size_t code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

void WriteMemory(const StoreStatus& status, MetricWriter& writer) {
  const auto kind = [&](const char* name, uint64_t bytes) {
    writer.Gauge("attic_store_memory_bytes", "Memory of sessions by what it holds.",
                 static_cast<double>(bytes), {{"kind", name}});
  };
  kind("vectors", status.memory.vectors_bytes);
  kind("tail", status.memory.tail_bytes);
  kind("summaries", status.memory.summaries_bytes);
  kind("codes", status.memory.codes_bytes);
  kind("graph", status.memory.graph_bytes);
  writer.Gauge("attic_store_memory_limit_bytes", "What attic_store_memory_charged_bytes may reach.",
               static_cast<double>(status.memory_limit_bytes));
  writer.Gauge("attic_store_memory_charged_bytes",
               "Memory counted against the limit; what sessions share counts once.",
               static_cast<double>(status.memory_charged_bytes));
}

void WriteDisk(const StoreStatus& status, MetricWriter& writer) {
  writer.Gauge("attic_store_evicted_bytes", "Keys and values that are on disk only.",
               static_cast<double>(status.memory.evicted_bytes));
  writer.Gauge("attic_store_disk_bytes", "Size of all segment files.",
               static_cast<double>(status.disk_bytes));
  writer.Gauge("attic_store_cache_bytes",
               "Keys and values read from disk and kept, beside the memory of sessions.",
               static_cast<double>(status.cache_bytes));
  writer.Counter("attic_store_cache_hits_total",
                 "Reads of keys and values on disk that the cache answered.",
                 static_cast<double>(status.cache_hits));
  writer.Counter("attic_store_cache_misses_total",
                 "Reads of keys and values on disk that went to the disk.",
                 static_cast<double>(status.cache_misses));
  writer.Gauge("attic_store_damage_reports", "What was found damaged on disk, and named.",
               static_cast<double>(status.damage.size()));
}

void WriteAttention(const CallMetrics& calls, MetricWriter& writer) {
  const CountsByCode items = calls.attend_items();
  for (size_t code = 0; code < kStatusCodes; ++code) {
    if (items[code] == 0 && code != 0) continue;
    writer.Counter("attic_store_attend_items_total",
                   "Items of attend requests, a query in one layer of one session each.",
                   static_cast<double>(items[code]), {{"code", CodeName(code)}});
  }
  writer.Counter("attic_store_attend_degraded_total",
                 "Items whose exact part the deadline cut short.",
                 static_cast<double>(calls.degraded_items()));
  writer.Histogram("attic_store_attend_coverage_ratio",
                   "Share of the softmax mass attended exactly, for each query head.",
                   calls.coverages());
  writer.Histogram("attic_store_attend_estimated_error_ratio",
                   "Estimated relative error of the output, for each query head.",
                   calls.estimated_errors());
  writer.Counter("attic_store_query_tokens_total",
                 "Tokens in the ranges that queries asked for, times kv heads.",
                 static_cast<double>(calls.tokens()));
  writer.Counter("attic_store_query_exact_tokens_total",
                 "Tokens that queries read exactly, times kv heads.",
                 static_cast<double>(calls.exact_tokens()));
  const auto read = [&](const char* source, uint64_t bytes) {
    writer.Counter("attic_store_query_read_bytes_total",
                   "Bytes that queries went through in memory, and that were fetched from disk for "
                   "them.",
                   static_cast<double>(bytes), {{"source", source}});
  };
  read("memory", calls.bytes_read());
  read("disk", calls.disk_bytes_read());
}

}  // namespace

void WriteStoreMetrics(StoreServer& server, MetricWriter& writer) {
  WriteStatus(server.store().Status(), writer);
  WriteActivity(server.Activity(), writer);
  WriteCalls(server.calls(), writer);
  if (const auto node = server.AsNode(); node.has_value()) WriteNode(*node, writer);
}

void WriteStatus(const StoreStatus& status, MetricWriter& writer) {
  writer.Gauge("attic_store_info", "Always 1; its labels say which process this is.", 1,
               {{"version", status.version},
                {"boot_id", status.boot_id},
                {"vector_target", status.vector_target}});
  writer.Gauge("attic_store_uptime_seconds", "Time since the start of the store.",
               status.uptime_seconds);
  writer.Gauge("attic_store_threads", "Threads that answer queries.",
               static_cast<double>(status.threads));
  writer.Gauge("attic_store_sessions", "Open sessions.", static_cast<double>(status.sessions));
  writer.Gauge("attic_store_sessions_recovering", "Sessions that are being read from disk.",
               static_cast<double>(status.recovering_sessions));
  writer.Counter("attic_store_sessions_evicted_total",
                 "Sessions that the store closed because their lease had ended.",
                 static_cast<double>(status.evicted_sessions));
  writer.Gauge("attic_store_tokens", "Tokens held, times stored layers.",
               static_cast<double>(status.tokens));
  writer.Gauge("attic_store_pending_segments", "Segments that are being built or wait for it.",
               static_cast<double>(status.pending_segments));
  WriteMemory(status, writer);
  WriteDisk(status, writer);
}

void WriteCalls(const CallMetrics& calls, MetricWriter& writer) {
  for (size_t m = 0; m < kMethods; ++m) {
    const auto method = static_cast<Method>(m);
    const CountsByCode counts = calls.calls(method);
    for (size_t code = 0; code < kStatusCodes; ++code) {
      // With a series of successes from the start, rates of them begin at 0.
      if (counts[code] == 0 && code != 0) continue;
      writer.Counter("attic_store_calls_total",
                     "Calls, and requests on streams, by how they ended.",
                     static_cast<double>(counts[code]),
                     {{"method", MethodName(method)}, {"code", CodeName(code)}});
    }
  }
  for (size_t k = 0; k < kCallKinds; ++k) {
    const auto kind = static_cast<CallKind>(k);
    writer.Histogram("attic_store_call_duration_seconds",
                     "Time from the arrival of a call to its answer.", calls.durations(kind),
                     {{"call", CallKindName(kind)}});
  }
  writer.Counter("attic_store_appended_tokens_total",
                 "Tokens of acknowledged appends, times layers.",
                 static_cast<double>(calls.appended_tokens()));
  WriteAttention(calls, writer);
}

void WriteActivity(const ServerActivity& activity, MetricWriter& writer) {
  writer.Gauge("attic_store_ready", "1 while health checks say that the store is ready.",
               activity.ready ? 1 : 0);
  writer.Gauge("attic_store_draining", "1 from the signal that ends the store on.",
               activity.draining ? 1 : 0);
  writer.Gauge("attic_store_streams", "Open streams.", static_cast<double>(activity.streams));
  WriteQueue("query", activity.queries, writer);
  WriteQueue("append", activity.appends, writer);
}

}  // namespace attic
