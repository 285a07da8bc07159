#include "server/storage/segment_format.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "api/limits.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/storage/segment_arrays.h"
#include "xxhash.h"

namespace attic {
namespace {

constexpr char kMagic[8] = {'A', 'T', 'T', 'I', 'C', 'S', 'E', 'G'};

// The first kSegmentHeaderBytes of a file.
struct EncodedSection {
  uint32_t kind;
  uint32_t reserved;
  uint64_t offset;
  uint64_t bytes;
  uint64_t checksum;
};
struct EncodedHeader {
  char magic[8];
  uint32_t format_version;
  uint32_t segment_version;
  uint64_t identity;
  uint64_t file_bytes;
  int64_t begin_position;
  uint32_t tokens;
  uint32_t element_type;
  uint32_t head_dim;
  uint32_t value_dim;
  uint32_t clusters;
  uint32_t super_clusters;
  uint32_t sign_blocks;
  uint32_t section_count;
  uint8_t reserved[56];
  EncodedSection sections[kSectionCount];
  uint8_t reserved_after[88];
  uint64_t checksum;
};
static_assert(sizeof(EncodedHeader) == kSegmentHeaderBytes);
static_assert(offsetof(EncodedHeader, sections) == 128);
static_assert(offsetof(EncodedHeader, checksum) == kSegmentHeaderBytes - sizeof(uint64_t));

uint64_t HeaderChecksum(const EncodedHeader& header) {
  return XXH3_64bits(&header, offsetof(EncodedHeader, checksum));
}

uint64_t RoundUp(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError(absl::StrCat("header: ", what));
}

absl::Status CheckRange(const char* name, uint64_t value, uint64_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return Damaged(absl::StrCat(name, " is ", value, ", not from 1 to ", most));
}

absl::Status CheckVersions(const EncodedHeader& header) {
  if (header.format_version != kSegmentFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "format version ", header.format_version, "; this program knows ", kSegmentFormatVersion));
  }
  if (header.segment_version != Segment::kVersion) {
    return absl::FailedPreconditionError(absl::StrCat("segment version ", header.segment_version,
                                                      "; this program knows ", Segment::kVersion));
  }
  return absl::OkStatus();
}

// All that a writer of this version would write, less the identity and the sections' checksums.
absl::Status CheckSections(const EncodedHeader& encoded, const Sections& expected) {
  if (encoded.section_count != kSectionCount) return Damaged("number of sections");
  for (size_t i = 0; i < kSectionCount; ++i) {
    const EncodedSection& section = encoded.sections[i];
    if (section.kind != i + 1 || section.offset != expected[i].offset ||
        section.bytes != expected[i].bytes) {
      return Damaged(
          absl::StrCat("section ", SectionName(static_cast<SectionKind>(i + 1)), " is misplaced"));
    }
  }
  return absl::OkStatus();
}

SegmentShape ShapeOf(const EncodedHeader& encoded) {
  return {.element_type = static_cast<ElementType>(encoded.element_type),
          .head_dim = encoded.head_dim,
          .value_dim = encoded.value_dim,
          .begin_position = encoded.begin_position,
          .tokens = encoded.tokens,
          .clusters = encoded.clusters,
          .super_clusters = encoded.super_clusters,
          .sign_blocks = encoded.sign_blocks};
}

}  // namespace

const char* SectionName(SectionKind kind) {
  switch (kind) {
    case SectionKind::kRowPositions:
      return "row positions";
    case SectionKind::kClusters:
      return "clusters";
    case SectionKind::kSuperClusters:
      return "super-clusters";
    case SectionKind::kSuperClusterBegin:
      return "clusters of super-clusters";
    case SectionKind::kSignCodes:
      return "sign codes";
    case SectionKind::kResidualCodes:
      return "residual codes";
    case SectionKind::kFacts:
      return "facts";
    case SectionKind::kClusterTable:
      return "table of clusters";
    case SectionKind::kVectors:
      return "vectors";
  }
  return "unknown";
}

SegmentShape SegmentShape::Of(const Segment& segment) {
  return {.element_type = segment.element_type,
          .head_dim = segment.head_dim,
          .value_dim = segment.value_dim,
          .begin_position = segment.begin_position,
          .tokens = segment.tokens,
          .clusters = segment.clusters.count,
          .super_clusters = segment.super_clusters.count,
          .sign_blocks = segment.codes.block_count()};
}

absl::Status CheckShape(const SegmentShape& shape) {
  const Limits limits;
  ATTIC_RETURN_IF_ERROR(CheckRange("tokens", shape.tokens, Segment::kTokensMax));
  ATTIC_RETURN_IF_ERROR(CheckRange("head_dim", shape.head_dim, limits.head_dim_max));
  ATTIC_RETURN_IF_ERROR(CheckRange("value_dim", shape.value_dim, limits.head_dim_max));
  ATTIC_RETURN_IF_ERROR(CheckRange("clusters", shape.clusters, kSegmentClustersMax));
  ATTIC_RETURN_IF_ERROR(CheckRange("super_clusters", shape.super_clusters, kSegmentClustersMax));
  // A super-cluster has at most one block that is not full.
  ATTIC_RETURN_IF_ERROR(CheckRange("sign_blocks", shape.sign_blocks,
                                   shape.tokens / kCodeBlockRows + shape.super_clusters));
  if (shape.begin_position < 0 ||
      shape.begin_position > std::numeric_limits<int64_t>::max() - Segment::kTokensMax) {
    return Damaged("begin_position");
  }
  if (LaySectionsOut(shape).back().offset > kIndexBytesMax) {
    return Damaged(absl::StrCat("more than ", kIndexBytesMax, " bytes before the vectors"));
  }
  return absl::OkStatus();
}

uint64_t SegmentHeader::file_bytes() const {
  return section(SectionKind::kVectors).offset + section(SectionKind::kVectors).bytes;
}

Sections LaySectionsOut(const SegmentShape& shape) {
  Sections sections;
  const auto section = [&](SectionKind kind) -> Section& {
    return sections[static_cast<size_t>(kind) - 1];
  };
  const Segment none;
  ForEachArray(none, shape, [&](SectionKind kind, const auto& array, size_t elements) {
    section(kind).bytes += elements * sizeof(array[0]);
  });
  section(SectionKind::kFacts).bytes = kFactCount * sizeof(double);
  section(SectionKind::kClusterTable).bytes = shape.clusters * sizeof(ClusterEntry);
  section(SectionKind::kVectors).bytes = shape.tokens * shape.row_bytes();
  uint64_t end = kSegmentHeaderBytes;
  for (Section& next : sections) {
    next.offset = RoundUp(end, kSectionAlignment);
    end = next.offset + next.bytes;
  }
  Section& vectors = section(SectionKind::kVectors);
  vectors.offset = RoundUp(vectors.offset, kVectorsAlignment);
  return sections;
}

void EncodeHeader(const SegmentHeader& header, std::span<std::byte> out) {
  ATTIC_CHECK(out.size() == kSegmentHeaderBytes);
  const SegmentShape& shape = header.shape;
  EncodedHeader encoded = {};
  std::memcpy(encoded.magic, kMagic, sizeof(kMagic));
  encoded.format_version = kSegmentFormatVersion;
  encoded.segment_version = Segment::kVersion;
  encoded.identity = header.identity;
  encoded.file_bytes = header.file_bytes();
  encoded.begin_position = shape.begin_position;
  encoded.tokens = static_cast<uint32_t>(shape.tokens);
  encoded.element_type = static_cast<uint32_t>(shape.element_type);
  encoded.head_dim = static_cast<uint32_t>(shape.head_dim);
  encoded.value_dim = static_cast<uint32_t>(shape.value_dim);
  encoded.clusters = static_cast<uint32_t>(shape.clusters);
  encoded.super_clusters = static_cast<uint32_t>(shape.super_clusters);
  encoded.sign_blocks = static_cast<uint32_t>(shape.sign_blocks);
  encoded.section_count = kSectionCount;
  for (size_t i = 0; i < kSectionCount; ++i) {
    const Section& section = header.sections[i];
    encoded.sections[i] = {static_cast<uint32_t>(i + 1), 0, section.offset, section.bytes,
                           section.checksum};
  }
  encoded.checksum = HeaderChecksum(encoded);
  std::memcpy(out.data(), &encoded, sizeof(encoded));
}

absl::StatusOr<SegmentHeader> DecodeHeader(std::span<const std::byte> bytes, uint64_t file_bytes) {
  ATTIC_CHECK(bytes.size() == kSegmentHeaderBytes);
  EncodedHeader encoded;
  std::memcpy(&encoded, bytes.data(), sizeof(encoded));
  if (std::memcmp(encoded.magic, kMagic, sizeof(kMagic)) != 0) return Damaged("magic number");
  if (encoded.checksum != HeaderChecksum(encoded)) return Damaged("checksum");
  ATTIC_RETURN_IF_ERROR(CheckVersions(encoded));
  if (encoded.element_type < static_cast<uint32_t>(ElementType::kFloat32) ||
      encoded.element_type > static_cast<uint32_t>(ElementType::kFloat16)) {
    return Damaged("element type");
  }
  SegmentHeader header{.identity = encoded.identity, .shape = ShapeOf(encoded)};
  ATTIC_RETURN_IF_ERROR(CheckShape(header.shape));
  header.sections = LaySectionsOut(header.shape);
  ATTIC_RETURN_IF_ERROR(CheckSections(encoded, header.sections));
  if (encoded.file_bytes != header.file_bytes()) return Damaged("size of the file");
  if (encoded.file_bytes != file_bytes) {
    return Damaged(absl::StrCat("the file has ", file_bytes, " bytes, not ", encoded.file_bytes));
  }
  for (size_t i = 0; i < kSectionCount; ++i) {
    header.sections[i].checksum = encoded.sections[i].checksum;
  }
  // Reserved bytes are zero: so is everything that is not known here.
  std::array<std::byte, kSegmentHeaderBytes> again;
  EncodeHeader(header, again);
  if (!std::equal(again.begin(), again.end(), bytes.begin()) ||
      header.section(SectionKind::kVectors).checksum != 0) {
    return Damaged("reserved bytes");
  }
  return header;
}

uint64_t BlockChecksum(std::span<const std::byte> bytes, uint64_t identity, SectionKind kind,
                       uint32_t cluster) {
  const struct {
    uint64_t identity;
    uint32_t kind;
    uint32_t cluster;
  } place = {identity, static_cast<uint32_t>(kind), cluster};
  static_assert(sizeof(place) == 16);
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), XXH3_64bits(&place, sizeof(place)));
}

}  // namespace attic
