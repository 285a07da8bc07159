// The keys and values of a segment file, cluster by cluster.
#ifndef ATTIC_SERVER_STORAGE_FILE_VECTORS_H_
#define ATTIC_SERVER_STORAGE_FILE_VECTORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/index/segment/segment_vectors.h"
#include "server/storage/cluster_cache.h"
#include "server/storage/random_access_file.h"
#include "server/storage/segment_format.h"

namespace attic {

// A file and what is known of where its clusters are.
struct FileClusters {
  std::unique_ptr<RandomAccessFile> file;
  uint64_t identity = 0;
  SegmentShape shape;
  uint64_t vectors_offset = 0;
  std::vector<uint32_t> row_begin;  // (clusters + 1)
  std::vector<uint64_t> checksum;   // (clusters)

  size_t count() const { return checksum.size(); }
  size_t rows(size_t cluster) const { return row_begin[cluster + 1] - row_begin[cluster]; }
  size_t keys_bytes(size_t cluster) const { return rows(cluster) * shape.key_bytes(); }
  // Of clusters [begin, end), which are contiguous.
  size_t bytes(size_t begin, size_t end) const {
    return (row_begin[end] - row_begin[begin]) * shape.row_bytes();
  }

  // Fills `out` with clusters from `begin` on. Checks nothing but that there are so many bytes.
  absl::Status Read(size_t begin, std::span<std::byte> out) const;
  // DATA_LOSS naming file and cluster unless `block` is that cluster, of finite numbers.
  absl::Status Check(size_t cluster, std::span<const std::byte> block) const;
  // Reads and checks all clusters in large pieces: calls visit(cluster, block) for each in order.
  absl::Status ReadEach(
      const std::function<void(size_t cluster, std::span<const std::byte> block)>& visit) const;
};

// Sources that are read in one call must all be of this class.
class FileVectors final : public VectorSource {
 public:
  FileVectors(FileClusters clusters, std::shared_ptr<ClusterCache> cache);

  absl::Status ReadClusters(std::span<ClusterRead> reads) const override;
  absl::StatusOr<VectorArrays> ReadAll() const override;
  uint64_t bytes() const override { return clusters_.bytes(0, clusters_.count()); }
  void Keep(uint32_t cluster, std::span<const std::byte> keys,
            std::span<const std::byte> values) const override;

 private:
  using Run = std::span<ClusterRead* const>;

  // Reads what caches do not hold, several runs at a time.
  absl::Status ReadMisses(std::span<ClusterRead*> misses) const;
  // Reads of contiguous clusters of this source, ascending; the same cluster may come twice.
  absl::Status ReadRun(Run run) const;

  const FileClusters clusters_;
  const std::shared_ptr<ClusterCache> cache_;
  const uint64_t source_;  // in the cache
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_FILE_VECTORS_H_
