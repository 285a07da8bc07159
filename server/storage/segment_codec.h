// A segment less its vectors as the bytes of its file, and back.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_CODEC_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/index/segment/segment.h"
#include "server/index/segment/segment_vectors.h"
#include "server/storage/segment_format.h"

namespace attic {

// Everything of a file before its vectors: the header and all other sections.
//   INVALID_ARGUMENT: the segment is not one that DecodeIndex would accept.
// Programmer errors: vectors that are not those of the segment.
absl::StatusOr<std::vector<std::byte>> EncodeIndex(const Segment& segment,
                                                   const VectorArrays& vectors);

struct DecodedIndex {
  std::shared_ptr<Segment> segment;        // without vectors
  std::vector<uint64_t> cluster_checksum;  // (clusters)
};

// `bytes` are those from the end of the header to the vectors. Checks checksums, the zeros between
// sections, and all that ValidateSegment does.
//   DATA_LOSS naming the section, not the file.
absl::StatusOr<DecodedIndex> DecodeIndex(const SegmentHeader& header,
                                         std::span<const std::byte> bytes);

// Checks what searches rely on, so that no segment can make them read out of bounds or compare
// NaNs: counts, order and ranges of what refers to rows, clusters and blocks, and that numbers are
// finite. Arrays have the sizes that the segment's shape implies.
//   DATA_LOSS naming the section.
absl::Status ValidateSegment(const Segment& segment);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_CODEC_H_
