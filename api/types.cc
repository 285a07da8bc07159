#include "api/types.h"

namespace attic {

const char* DurabilityName(Durability durability) {
  return durability == Durability::kDurable ? "durable" : "memory";
}

ReadStatistics& ReadStatistics::operator+=(const ReadStatistics& other) {
  tokens += other.tokens;
  exact_tokens += other.exact_tokens;
  estimated_clusters += other.estimated_clusters;
  estimated_super_clusters += other.estimated_super_clusters;
  graph_visits += other.graph_visits;
  bytes_read += other.bytes_read;
  disk_bytes_read += other.disk_bytes_read;
  return *this;
}

MemoryUse& MemoryUse::operator+=(const MemoryUse& other) {
  vectors_bytes += other.vectors_bytes;
  tail_bytes += other.tail_bytes;
  summaries_bytes += other.summaries_bytes;
  codes_bytes += other.codes_bytes;
  graph_bytes += other.graph_bytes;
  evicted_bytes += other.evicted_bytes;
  return *this;
}

}  // namespace attic
