// Clusters read from segment files, kept in memory up to a limit of bytes, and the threads that read
// them.
#ifndef ATTIC_SERVER_STORAGE_CLUSTER_CACHE_H_
#define ATTIC_SERVER_STORAGE_CLUSTER_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"

namespace attic {

struct ClusterCacheOptions {
  uint64_t bytes_max = 256u << 20;
  size_t read_threads = 8;  // reads under way at a time for all callers
};

struct ClusterCacheUse {
  uint64_t bytes = 0;
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t disk_bytes = 0;  // read since the start
};

// Thread-safe. A cluster read once does not displace those that were read again: so a scan of much
// that is not needed again does not flush the cache. (RocksDB's LRU cache with a pool for entries
// that were hit does so; see server/storage/cluster_cache.cc.)
class ClusterCache;

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_CLUSTER_CACHE_H_
