// A segment with its vectors as the bytes of its file, in memory.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_IMAGE_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_IMAGE_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/index/segment/segment.h"
#include "server/index/segment/segment_vectors.h"

namespace attic {

// What WriteSegmentFile writes. INVALID_ARGUMENT as there.
absl::StatusOr<std::string> EncodeSegmentImage(const Segment& segment, const VectorArrays& vectors);

struct SegmentImage {
  std::shared_ptr<Segment> segment;  // without vectors
  VectorArrays vectors;
};

// Checks all that OpenSegmentFile does, and every cluster.
//   DATA_LOSS: damaged; FAILED_PRECONDITION: of an unknown version.
absl::StatusOr<SegmentImage> DecodeSegmentImage(std::string_view bytes);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_IMAGE_H_
