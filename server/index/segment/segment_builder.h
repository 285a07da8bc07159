// Turns a run of tokens into a segment.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_BUILDER_H_
#define ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "attention/element_type.h"
#include "base/memory_budget.h"
#include "server/index/segment/segment.h"

namespace attic {

struct SegmentOptions {
  size_t clusters = 512;
  size_t super_clusters = 32;
  int kmeans_iterations = 10;
};

// A segment of keys.count tokens from `begin_position`; keys (tokens, head_dim) and values
// (tokens, value_dim) of one type in order of position. Deterministic; uses one thread. `rotation`
// is that of head_dim. The vectors are charged to `budget`, which may be null.
std::shared_ptr<const Segment> BuildSegment(const VectorsView& keys, const VectorsView& values,
                                            int64_t begin_position, const SegmentOptions& options,
                                            const SignRotation& rotation,
                                            std::shared_ptr<MemoryBudget> budget = nullptr);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_BUILDER_H_
