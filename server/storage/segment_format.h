// The outline of a segment file: its header, where its sections are, and what protects them.
// FORMAT.md says what every byte means.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_FORMAT_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_FORMAT_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention/element_type.h"
#include "server/index/segment/segment.h"

namespace attic {

// Arrays are copied as they lie in memory.
static_assert(std::endian::native == std::endian::little);

inline constexpr uint32_t kSegmentFormatVersion = 1;
inline constexpr size_t kSegmentHeaderBytes = 512;
inline constexpr size_t kSectionAlignment = 8;
inline constexpr size_t kVectorsAlignment = 4096;
inline constexpr size_t kSegmentClustersMax = 65536;    // clusters, and super-clusters
inline constexpr uint64_t kIndexBytesMax = 512u << 20;  // read at once when a file is opened

enum class SectionKind : uint32_t {
  kRowPositions = 1,
  kClusters = 2,
  kSuperClusters = 3,
  kSuperClusterBegin = 4,
  kSignCodes = 5,
  kResidualCodes = 6,
  kFacts = 7,
  kClusterTable = 8,
  kVectors = 9,
};
inline constexpr size_t kSectionCount = 9;

const char* SectionName(SectionKind kind);

// What fixes the size of everything in a file.
struct SegmentShape {
  ElementType element_type = ElementType::kBFloat16;
  size_t head_dim = 0;
  size_t value_dim = 0;
  int64_t begin_position = 0;
  size_t tokens = 0;
  size_t clusters = 0;
  size_t super_clusters = 0;
  size_t sign_blocks = 0;

  static SegmentShape Of(const Segment& segment);
  size_t key_bytes() const { return head_dim * ElementBytes(element_type); }
  size_t value_bytes() const { return value_dim * ElementBytes(element_type); }
  size_t row_bytes() const { return key_bytes() + value_bytes(); }
  bool operator==(const SegmentShape&) const = default;
};

// DATA_LOSS naming the count that is beyond its limit, or so large that what is not vectors has
// more than kIndexBytesMax.
absl::Status CheckShape(const SegmentShape& shape);

struct Section {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // 0 of kVectors, whose clusters have their own
};
using Sections = std::array<Section, kSectionCount>;  // in order of kind and offset

struct SegmentHeader {
  uint64_t identity = 0;
  SegmentShape shape;
  Sections sections;

  const Section& section(SectionKind kind) const { return sections[static_cast<size_t>(kind) - 1]; }
  Section& section(SectionKind kind) { return sections[static_cast<size_t>(kind) - 1]; }
  uint64_t file_bytes() const;
};

// An entry of the table of clusters.
struct ClusterEntry {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t checksum = 0;
};
static_assert(sizeof(ClusterEntry) == 24);

// Where the sections of a file of this shape are, without checksums. `shape` passed CheckShape.
Sections LaySectionsOut(const SegmentShape& shape);

// `out` has kSegmentHeaderBytes.
void EncodeHeader(const SegmentHeader& header, std::span<std::byte> out);

// Checks everything: that the sections are where LaySectionsOut puts them, and that a file of
// `file_bytes` ends with the last.
//   DATA_LOSS: damaged; FAILED_PRECONDITION: of an unknown version. Messages name no file.
absl::StatusOr<SegmentHeader> DecodeHeader(std::span<const std::byte> bytes, uint64_t file_bytes);

// Of a section, or of one cluster of kVectors. Differs with file, kind and cluster, so that a block
// that is whole but belongs elsewhere is noticed.
uint64_t BlockChecksum(std::span<const std::byte> bytes, uint64_t identity, SectionKind kind,
                       uint32_t cluster = 0);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_FORMAT_H_
