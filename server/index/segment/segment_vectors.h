// Where the keys and values of a segment are: in memory, or in a file from which single clusters
// are read. Everything else of a segment stays in memory.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_VECTORS_H_
#define ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_VECTORS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/memory_budget.h"
#include "base/mutex.h"

namespace attic {

// Rows of a segment in cluster order, in the element type of the head.
struct VectorArrays {
  std::vector<std::byte> keys;    // (tokens, head_dim)
  std::vector<std::byte> values;  // (tokens, value_dim)
  uint64_t bytes() const { return keys.size() + values.size(); }
};

// The rows of one cluster, readable for as long as `owner` is held.
struct ClusterRows {
  const std::byte* keys = nullptr;    // (rows of the cluster, head_dim)
  const std::byte* values = nullptr;  // (rows of the cluster, value_dim)
  std::shared_ptr<const void> owner;
};

class VectorSource;

struct ClusterRead {
  const VectorSource* source = nullptr;
  uint32_t cluster = 0;
  ClusterRows rows;         // set by a successful read
  uint64_t disk_bytes = 0;  // set too: 0 when a cache held the cluster
};

// The file of one segment. Thread-safe.
class VectorSource {
 public:
  virtual ~VectorSource() = default;

  // Reads clusters of this source and of others of the same store, several at a time.
  //   UNAVAILABLE: a file cannot be read; DATA_LOSS: what it holds is damaged. Both name the file.
  virtual absl::Status ReadClusters(std::span<ClusterRead> reads) const = 0;

  // All rows, past every cache.
  virtual absl::StatusOr<VectorArrays> ReadAll() const = 0;
  // Of all rows.
  virtual uint64_t bytes() const = 0;

  // Keeps rows of a cluster that were in memory, as if they had just been read.
  virtual void Keep(uint32_t cluster, std::span<const std::byte> keys,
                    std::span<const std::byte> values) const = 0;
};

// The vectors of one segment, shared by all who hold the segment. Thread-safe.
class SegmentVectors {
 public:
  // In memory, charged to `budget` (may be null) until the last reader lets go of them.
  SegmentVectors(VectorArrays arrays, size_t clusters, std::shared_ptr<MemoryBudget> budget);
  // In a file only.
  SegmentVectors(std::shared_ptr<const VectorSource> source, size_t clusters,
                 std::shared_ptr<MemoryBudget> budget);

  // Null when they are not in memory.
  std::shared_ptr<const VectorArrays> arrays() const;
  bool resident() const { return resident_bytes() > 0; }
  uint64_t resident_bytes() const { return resident_bytes_.load(std::memory_order_relaxed); }
  uint64_t bytes() const { return bytes_; }  // of all rows, wherever they are

  // From now on the vectors can be read from `source`, too, and so be evicted.
  void AttachSource(std::shared_ptr<const VectorSource> source);
  // Null when they are in memory only.
  std::shared_ptr<const VectorSource> source() const;

  // In memory, or read from the file without being kept. Errors of VectorSource::ReadAll.
  absl::StatusOr<std::shared_ptr<const VectorArrays>> ArraysOrRead() const;

  // Lets go of the memory; the source keeps the clusters that were read most often, as
  // `row_begin` (clusters + 1) of the segment tells them apart. Returns the bytes let go of, 0 when
  // there is no source or nothing in memory.
  uint64_t Evict(std::span<const uint32_t> row_begin);
  // Reads them into memory; nothing when they are there.
  absl::Status Load();

  // Notes that rows of a cluster were read for a query.
  void CountRead(size_t cluster) {
    std::atomic<uint8_t>& reads = reads_[cluster];
    const uint8_t now = reads.load(std::memory_order_relaxed);
    if (now < kReadsMax) reads.store(now + 1, std::memory_order_relaxed);
  }
  // Reads noted, of all clusters together. With `halve` older ones count for less from now on.
  uint64_t Heat(bool halve);

 private:
  static constexpr uint8_t kReadsMax = 255;

  std::shared_ptr<const VectorArrays> Charge(VectorArrays arrays) const;

  const size_t clusters_;
  const std::shared_ptr<MemoryBudget> budget_;
  std::atomic<uint64_t> resident_bytes_{0};
  const uint64_t bytes_;
  const std::unique_ptr<std::atomic<uint8_t>[]> reads_;  // (clusters)
  mutable Mutex mutex_;
  std::shared_ptr<const VectorArrays> arrays_ ATTIC_GUARDED_BY(mutex_);
  std::shared_ptr<const VectorSource> source_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_VECTORS_H_
