#include "server/storage/segment_codec.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/storage/segment_arrays.h"
#include "xxhash.h"

namespace attic {
namespace {

template <typename T>
std::span<const std::byte> BytesOf(const std::vector<T>& array) {
  return std::as_bytes(std::span(array));
}

// Sizes that differ are a programmer's error where they follow from others of the segment.
void CheckArraySizes(const Segment& segment, const SegmentShape& shape,
                     const VectorArrays& vectors) {
  ATTIC_CHECK(vectors.keys.size() == shape.tokens * shape.key_bytes());
  ATTIC_CHECK(vectors.values.size() == shape.tokens * shape.value_bytes());
  const SignRotation rotation(shape.head_dim);
  ATTIC_CHECK(segment.codes.code_bytes == rotation.code_dim() / 8);
  ATTIC_CHECK(segment.residuals.row_bytes == ResidualRowBytes(rotation));
  ForEachArray(segment, shape, [](SectionKind, const auto& array, size_t elements) {
    ATTIC_CHECK(array.size() == elements);
  });
}

// Any number would do that differs from that of every file of other content.
uint64_t ContentIdentity(std::span<const std::byte> index, const VectorArrays& vectors) {
  const std::array<uint64_t, 3> parts = {
      XXH3_64bits(index.data(), index.size()),
      XXH3_64bits(vectors.keys.data(), vectors.keys.size()),
      XXH3_64bits(vectors.values.data(), vectors.values.size()),
  };
  return XXH3_64bits(parts.data(), sizeof(parts));
}

void PutArrays(const Segment& segment, const SegmentHeader& header, std::byte* index) {
  std::array<uint64_t, kSectionCount> used = {};
  const auto put = [&](SectionKind kind, std::span<const std::byte> bytes) {
    uint64_t& end = used[static_cast<size_t>(kind) - 1];
    std::copy(bytes.begin(), bytes.end(), index + header.section(kind).offset + end);
    end += bytes.size();
  };
  ForEachArray(segment, header.shape,
               [&](SectionKind kind, const auto& array, size_t) { put(kind, BytesOf(array)); });
  ForEachFact(segment, [&](const double& fact) {
    put(SectionKind::kFacts, std::as_bytes(std::span(&fact, 1)));
  });
}

// A cluster is its keys followed by its values.
uint64_t ClusterChecksum(const Segment& segment, const SegmentHeader& header,
                         const VectorArrays& vectors, size_t cluster,
                         std::vector<std::byte>& scratch) {
  const size_t begin = segment.clusters.row_begin[cluster], rows = segment.clusters.rows(cluster);
  const size_t key_bytes = header.shape.key_bytes(), value_bytes = header.shape.value_bytes();
  scratch.resize(rows * header.shape.row_bytes());
  std::copy_n(vectors.keys.begin() + begin * key_bytes, rows * key_bytes, scratch.begin());
  std::copy_n(vectors.values.begin() + begin * value_bytes, rows * value_bytes,
              scratch.begin() + rows * key_bytes);
  return BlockChecksum(scratch, header.identity, SectionKind::kVectors,
                       static_cast<uint32_t>(cluster));
}

void PutClusterTable(const Segment& segment, const VectorArrays& vectors,
                     const SegmentHeader& header, std::byte* index) {
  const uint64_t vectors_offset = header.section(SectionKind::kVectors).offset;
  const uint64_t row_bytes = header.shape.row_bytes();
  std::byte* out = index + header.section(SectionKind::kClusterTable).offset;
  std::vector<std::byte> scratch;
  for (size_t cluster = 0; cluster < segment.clusters.count; ++cluster) {
    const ClusterEntry entry = {
        .offset = vectors_offset + segment.clusters.row_begin[cluster] * row_bytes,
        .bytes = segment.clusters.rows(cluster) * row_bytes,
        .checksum = ClusterChecksum(segment, header, vectors, cluster, scratch)};
    std::memcpy(out + cluster * sizeof(entry), &entry, sizeof(entry));
  }
}

// Bytes of the index part that were read.
class IndexBytes {
 public:
  IndexBytes(const SegmentHeader& header, std::span<const std::byte> bytes)
      : header_(header), bytes_(bytes) {}

  std::span<const std::byte> section(SectionKind kind) const {
    const Section& section = header_.section(kind);
    return bytes_.subspan(section.offset - kSegmentHeaderBytes, section.bytes);
  }

  // Checksums, and zeros between sections.
  absl::Status Check() const {
    uint64_t end = kSegmentHeaderBytes;
    for (size_t i = 0; i < kSectionCount; ++i) {
      const Section& next = header_.sections[i];
      for (; end < next.offset; ++end) {
        if (bytes_[end - kSegmentHeaderBytes] != std::byte{0}) {
          return absl::DataLossError(absl::StrCat("byte ", end, " between sections is not zero"));
        }
      }
      end = next.offset + next.bytes;
      const auto kind = static_cast<SectionKind>(i + 1);
      if (kind == SectionKind::kVectors) continue;
      if (BlockChecksum(section(kind), header_.identity, kind) != next.checksum) {
        return absl::DataLossError(absl::StrCat("section ", SectionName(kind), ": checksum"));
      }
    }
    return absl::OkStatus();
  }

  void GetArrays(Segment& segment) const {
    std::array<uint64_t, kSectionCount> used = {};
    const auto get = [&](SectionKind kind, void* out, size_t bytes) {
      uint64_t& end = used[static_cast<size_t>(kind) - 1];
      if (bytes > 0) std::memcpy(out, section(kind).data() + end, bytes);
      end += bytes;
    };
    ForEachArray(segment, header_.shape, [&](SectionKind kind, auto& array, size_t elements) {
      array.resize(elements);
      get(kind, array.data(), elements * sizeof(array[0]));
    });
    ForEachFact(segment, [&](double& fact) { get(SectionKind::kFacts, &fact, sizeof(fact)); });
  }

  // The table says nothing but checksums that the clusters do not.
  absl::StatusOr<std::vector<uint64_t>> ClusterChecksums(const Segment& segment) const {
    const std::byte* table = section(SectionKind::kClusterTable).data();
    const uint64_t row_bytes = header_.shape.row_bytes();
    const uint64_t vectors_offset = header_.section(SectionKind::kVectors).offset;
    std::vector<uint64_t> checksums(segment.clusters.count);
    for (size_t cluster = 0; cluster < checksums.size(); ++cluster) {
      ClusterEntry entry;
      std::memcpy(&entry, table + cluster * sizeof(entry), sizeof(entry));
      if (entry.offset != vectors_offset + segment.clusters.row_begin[cluster] * row_bytes ||
          entry.bytes != segment.clusters.rows(cluster) * row_bytes) {
        return absl::DataLossError(absl::StrCat("section ", SectionName(SectionKind::kClusterTable),
                                                ": cluster ", cluster, " is misplaced"));
      }
      checksums[cluster] = entry.checksum;
    }
    return checksums;
  }

 private:
  const SegmentHeader& header_;
  const std::span<const std::byte> bytes_;
};

}  // namespace

absl::StatusOr<std::vector<std::byte>> EncodeIndex(const Segment& segment,
                                                   const VectorArrays& vectors) {
  SegmentHeader header{.shape = SegmentShape::Of(segment)};
  absl::Status valid = CheckShape(header.shape);
  if (valid.ok()) {
    CheckArraySizes(segment, header.shape, vectors);
    valid = ValidateSegment(segment);
  }
  if (!valid.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("segment cannot be stored: ", std::string(valid.message())));
  }
  header.sections = LaySectionsOut(header.shape);
  std::vector<std::byte> index(header.section(SectionKind::kVectors).offset);
  PutArrays(segment, header, index.data());
  EncodeHeader(header, std::span(index).first(kSegmentHeaderBytes));
  header.identity = ContentIdentity(index, vectors);
  PutClusterTable(segment, vectors, header, index.data());
  for (size_t i = 0; i < kSectionCount; ++i) {
    const auto kind = static_cast<SectionKind>(i + 1);
    if (kind == SectionKind::kVectors) continue;
    Section& section = header.sections[i];
    section.checksum = BlockChecksum(std::span(index).subspan(section.offset, section.bytes),
                                     header.identity, kind);
  }
  EncodeHeader(header, std::span(index).first(kSegmentHeaderBytes));
  return index;
}

absl::StatusOr<DecodedIndex> DecodeIndex(const SegmentHeader& header,
                                         std::span<const std::byte> bytes) {
  ATTIC_CHECK(bytes.size() == header.section(SectionKind::kVectors).offset - kSegmentHeaderBytes);
  const IndexBytes index(header, bytes);
  ATTIC_RETURN_IF_ERROR(index.Check());
  const SegmentShape& shape = header.shape;
  DecodedIndex decoded{.segment = std::make_shared<Segment>()};
  Segment& segment = *decoded.segment;
  segment.element_type = shape.element_type;
  segment.head_dim = shape.head_dim;
  segment.value_dim = shape.value_dim;
  segment.begin_position = shape.begin_position;
  segment.tokens = shape.tokens;
  segment.clusters.count = shape.clusters;
  segment.super_clusters.count = shape.super_clusters;
  const SignRotation rotation(shape.head_dim);
  segment.codes.code_bytes = rotation.code_dim() / 8;
  segment.residuals.row_bytes = ResidualRowBytes(rotation);
  index.GetArrays(segment);
  ATTIC_RETURN_IF_ERROR(ValidateSegment(segment));
  ATTIC_ASSIGN_OR_RETURN(decoded.cluster_checksum, index.ClusterChecksums(segment));
  return decoded;
}

}  // namespace attic
