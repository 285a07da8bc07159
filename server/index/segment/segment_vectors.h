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
  virtual absl::StatusOr<std::shared_ptr<const VectorArrays>> ReadAll() const = 0;

  // Keeps rows of a cluster that were in memory, as if they had just been read.
  virtual void Keep(uint32_t cluster, std::span<const std::byte> keys,
                    std::span<const std::byte> values) const = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_VECTORS_H_
