// Clusters read from segment files, kept in memory up to a limit of bytes, and the threads that
// read them.
#ifndef ATTIC_SERVER_STORAGE_CLUSTER_CACHE_H_
#define ATTIC_SERVER_STORAGE_CLUSTER_CACHE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/thread_pool.h"
#include "server/index/segment/segment_vectors.h"

namespace rocksdb {
class Cache;
}

namespace attic {

struct ClusterCacheOptions {
  uint64_t bytes_max = 256u << 20;
  size_t read_threads = 8;  // reads under way at a time, beside those of the callers themselves
};

struct ClusterCacheUse {
  uint64_t bytes = 0;  // of clusters kept or in use, and what the cache needs for them
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t disk_bytes = 0;  // read since the start
};

// Thread-safe. A cluster read once does not displace those that were read again: so a scan of much
// that is not needed again does not flush the cache. (RocksDB's LRU cache with a pool for entries
// that were hit does so; see server/storage/cluster_cache.cc.)
class ClusterCache {
 public:
  explicit ClusterCache(const ClusterCacheOptions& options);
  ~ClusterCache();
  ClusterCache(const ClusterCache&) = delete;
  ClusterCache& operator=(const ClusterCache&) = delete;

  // A number for a file, never given twice: what was kept of a file that is gone falls out.
  uint64_t NewSource();

  // Sets rows.owner if the cluster is kept, and where its keys and values are in its block: values
  // follow keys_bytes of keys. Counts nothing.
  bool Lookup(uint64_t source, uint32_t cluster, size_t keys_bytes, ClusterRows& rows);

  // Keeps a block of `bytes`, which is returned too; it lives on for as long as that is held, even
  // where it was displaced meanwhile or never fitted.
  ClusterRows Insert(uint64_t source, uint32_t cluster, std::unique_ptr<std::byte[]> block,
                     size_t keys_bytes, size_t bytes);

  // Adds to the statistics.
  void Count(uint64_t hits, uint64_t misses) {
    hits_.fetch_add(hits, std::memory_order_relaxed);
    misses_.fetch_add(misses, std::memory_order_relaxed);
  }
  void CountDiskBytes(uint64_t bytes) { disk_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  ClusterCacheUse use() const;

  // What does not fit any more falls out at once, unless it is in use.
  void SetCapacity(uint64_t bytes_max);

  ThreadPool& read_threads() { return read_threads_; }

 private:
  const std::shared_ptr<rocksdb::Cache> cache_;
  std::atomic<uint64_t> next_source_{1};
  std::atomic<uint64_t> hits_{0}, misses_{0}, disk_bytes_{0};
  ThreadPool read_threads_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_CLUSTER_CACHE_H_
