#include "server/storage/cluster_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "rocksdb/cache.h"
#if defined(__SANITIZE_THREAD__)
#include "sanitizer/tsan_interface.h"
#endif

namespace attic {
namespace {

// The mutexes of RocksDB's cache order all uses of a block before its deletion, and its insertion
// before them; the thread sanitizer does not see into that library, so it is told.
void HandOver([[maybe_unused]] const void* block) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(const_cast<void*>(block));
#endif
}
void TakeOver([[maybe_unused]] const void* block) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(const_cast<void*>(block));
#endif
}

// New entries go to the end of the list from which the cache takes what has to go. One that is
// found there moves to the pool of this share, and is displaced only by others that were found.
constexpr double kHitPoolRatio = 0.8;

struct Key {
  uint64_t source;
  uint64_t cluster;
  rocksdb::Slice slice() const { return {reinterpret_cast<const char*>(this), sizeof(*this)}; }
};

void DeleteBlock(const rocksdb::Slice&, void* value) {
  TakeOver(value);
  delete[] static_cast<std::byte*>(value);
}

// The rows of an entry, which is released with them. They keep the cache, too.
ClusterRows RowsOf(const std::shared_ptr<rocksdb::Cache>& cache, rocksdb::Cache::Handle* handle,
                   size_t keys_bytes) {
  const auto* block = static_cast<const std::byte*>(cache->Value(handle));
  TakeOver(block);
  const auto release = [cache, handle](const void* used) {
    HandOver(used);
    cache->Release(handle);
  };
  return {block, block + keys_bytes, std::shared_ptr<const void>(block, release)};
}

std::shared_ptr<rocksdb::Cache> MakeCache(uint64_t bytes_max) {
  rocksdb::LRUCacheOptions options;
  options.capacity = bytes_max;
  options.strict_capacity_limit = false;
  options.high_pri_pool_ratio = kHitPoolRatio;
  options.low_pri_pool_ratio = 0;
  return rocksdb::NewLRUCache(options);
}

}  // namespace

ClusterCache::ClusterCache(const ClusterCacheOptions& options)
    : cache_(MakeCache(options.bytes_max)),
      read_threads_(std::max<size_t>(1, options.read_threads)) {}

ClusterCache::~ClusterCache() = default;

uint64_t ClusterCache::NewSource() { return next_source_.fetch_add(1, std::memory_order_relaxed); }

bool ClusterCache::Lookup(uint64_t source, uint32_t cluster, size_t keys_bytes, ClusterRows& rows) {
  const Key key{source, cluster};
  rocksdb::Cache::Handle* const handle = cache_->Lookup(key.slice());
  if (handle == nullptr) return false;
  rows = RowsOf(cache_, handle, keys_bytes);
  return true;
}

ClusterRows ClusterCache::Insert(uint64_t source, uint32_t cluster,
                                 std::unique_ptr<std::byte[]> block, size_t keys_bytes,
                                 size_t bytes) {
  const Key key{source, cluster};
  HandOver(block.get());
  rocksdb::Cache::Handle* handle = nullptr;
  const rocksdb::Status status = cache_->Insert(key.slice(), block.get(), bytes, &DeleteBlock,
                                                &handle, rocksdb::Cache::Priority::LOW);
  // Without a strict limit every entry is taken, at least for as long as it is in use.
  ATTIC_CHECK(status.ok() && handle != nullptr);
  block.release();
  return RowsOf(cache_, handle, keys_bytes);
}

ClusterCacheUse ClusterCache::use() const {
  return {.bytes = cache_->GetUsage(),
          .hits = hits_.load(std::memory_order_relaxed),
          .misses = misses_.load(std::memory_order_relaxed),
          .disk_bytes = disk_bytes_.load(std::memory_order_relaxed)};
}

void ClusterCache::SetCapacity(uint64_t bytes_max) { cache_->SetCapacity(bytes_max); }

}  // namespace attic
