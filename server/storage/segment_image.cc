#include "server/storage/segment_image.h"

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention/element_type.h"
#include "base/status_macros.h"
#include "server/storage/segment_codec.h"
#include "server/storage/segment_format.h"

namespace attic {
namespace {

void Append(std::string& bytes, std::span<const std::byte> more) {
  bytes.append(reinterpret_cast<const char*>(more.data()), more.size());
}

}  // namespace

absl::StatusOr<std::string> EncodeSegmentImage(const Segment& segment,
                                               const VectorArrays& vectors) {
  ATTIC_ASSIGN_OR_RETURN(const std::vector<std::byte> index, EncodeIndex(segment, vectors));
  std::string bytes;
  bytes.reserve(index.size() + vectors.bytes());
  Append(bytes, index);
  const std::span keys(vectors.keys), values(vectors.values);
  const size_t key_bytes = keys.size() / segment.tokens;
  const size_t value_bytes = values.size() / segment.tokens;
  for (size_t cluster = 0; cluster < segment.clusters.count; ++cluster) {
    const size_t row = segment.clusters.row_begin[cluster], rows = segment.clusters.rows(cluster);
    Append(bytes, keys.subspan(row * key_bytes, rows * key_bytes));
    Append(bytes, values.subspan(row * value_bytes, rows * value_bytes));
  }
  return bytes;
}

absl::StatusOr<SegmentImage> DecodeSegmentImage(std::string_view bytes) {
  if (bytes.size() < kSegmentHeaderBytes) return absl::DataLossError("segment: it is too short");
  const auto all = std::as_bytes(std::span(bytes));
  ATTIC_ASSIGN_OR_RETURN(const SegmentHeader header,
                         DecodeHeader(all.first(kSegmentHeaderBytes), all.size()));
  const uint64_t vectors_offset = header.section(SectionKind::kVectors).offset;
  ATTIC_ASSIGN_OR_RETURN(
      DecodedIndex index,
      DecodeIndex(header, all.subspan(kSegmentHeaderBytes, vectors_offset - kSegmentHeaderBytes)));
  SegmentImage image{.segment = std::move(index.segment)};
  const SegmentShape& shape = header.shape;
  image.vectors.keys.reserve(shape.tokens * shape.key_bytes());
  image.vectors.values.reserve(shape.tokens * shape.value_bytes());
  auto rest = all.subspan(vectors_offset);
  for (size_t cluster = 0; cluster < shape.clusters; ++cluster) {
    const size_t rows = image.segment->clusters.rows(cluster);
    const auto block = rest.first(rows * shape.row_bytes());
    rest = rest.subspan(block.size());
    const bool whole =
        BlockChecksum(block, header.identity, SectionKind::kVectors,
                      static_cast<uint32_t>(cluster)) == index.cluster_checksum[cluster] &&
        AllFinite(block.data(), shape.element_type,
                  block.size() / ElementBytes(shape.element_type));
    if (!whole) return absl::DataLossError(absl::StrCat("segment: cluster ", cluster));
    const auto keys = block.first(rows * shape.key_bytes());
    const auto values = block.subspan(keys.size());
    image.vectors.keys.insert(image.vectors.keys.end(), keys.begin(), keys.end());
    image.vectors.values.insert(image.vectors.values.end(), values.begin(), values.end());
  }
  return image;
}

}  // namespace attic
