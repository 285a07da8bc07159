// One segment of one head as one file: written once, checked wherever it is read. FORMAT.md says
// what every byte means.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_FILE_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/types.h"
#include "attention/element_type.h"
#include "server/index/segment/segment.h"
#include "server/index/segment/segment_vectors.h"
#include "server/storage/cluster_cache.h"

namespace rocksdb {
class FileSystem;
}

namespace attic {

// Writes `segment` with `vectors` to `path`, which must not exist, so that a crash at any moment
// leaves either the whole file or none under that name: written under another name, synced,
// renamed, the folder synced. Returns the size of the file.
//   RESOURCE_EXHAUSTED: the disk is full; UNAVAILABLE: it cannot be written; ALREADY_EXISTS;
//   INVALID_ARGUMENT: OpenSegmentFile would refuse the segment, such as one whose sums overflowed.
//   Nothing is left then, unless what failed is the deletion itself.
absl::StatusOr<uint64_t> WriteSegmentFile(rocksdb::FileSystem& file_system, const std::string& path,
                                          const Segment& segment, const VectorArrays& vectors);

struct SegmentFileOptions {
  // Clusters are read past the page cache, which would keep them a second time. The file system
  // must be able to (tmpfs is not).
  bool direct_reads = false;
};

struct SegmentFile {
  std::shared_ptr<Segment> segment;  // without vectors; every count and offset was checked
  std::shared_ptr<const VectorSource> vectors;
  uint64_t file_bytes = 0;
  // Differs from that of files of other content: kept elsewhere, it tells files that were swapped.
  uint64_t identity = 0;
};

// Opens a file and reads everything but keys and values. Its vectors count reads in `cache` and
// keep clusters there; sources read together by one ReadClusters are all from this function. The
// file may be deleted while it is open.
//   NOT_FOUND; UNAVAILABLE: it cannot be read; DATA_LOSS: it is damaged; FAILED_PRECONDITION: of
//   a version this program does not know. All name the file, and the section where one is damaged.
absl::StatusOr<SegmentFile> OpenSegmentFile(std::shared_ptr<rocksdb::FileSystem> file_system,
                                            const std::string& path,
                                            std::shared_ptr<ClusterCache> cache,
                                            const SegmentFileOptions& options = {});

// Reads all of a file and compares every checksum; errors as of OpenSegmentFile.
absl::Status VerifySegmentFile(rocksdb::FileSystem& file_system, const std::string& path);

// What a whole reading of a file finds.
struct SegmentExamination {
  static constexpr size_t kDamagedClustersMax = 64;  // told apart; the first ones

  struct DamagedCluster {
    uint32_t cluster = 0;
    PositionRange positions;  // that hold those of its rows, among others
    std::string what;
  };

  // OK when the file can be opened; then the rest is known. Else as of OpenSegmentFile.
  absl::Status opened;
  uint64_t file_bytes = 0;
  uint64_t identity = 0;
  ElementType element_type = ElementType::kBFloat16;
  size_t head_dim = 0;
  size_t value_dim = 0;
  PositionRange positions;
  size_t damaged_clusters = 0;
  std::vector<DamagedCluster> clusters;
  absl::Status read;  // UNAVAILABLE, DATA_LOSS: the vectors could not be read to the end

  bool whole() const { return opened.ok() && read.ok() && damaged_clusters == 0; }
};
// Like VerifySegmentFile, but goes on behind damaged clusters.
SegmentExamination ExamineSegmentFile(rocksdb::FileSystem& file_system, const std::string& path);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_FILE_H_
