// Finds single keys that matter among all keys by scanning their one-bit codes.
//
// A key unlike its neighbours vanishes in the mean of its cluster, so neither sums nor the centroid
// graph lead to it; its code does.
#ifndef ATTIC_SERVER_INDEX_NEEDLE_SCAN_H_
#define ATTIC_SERVER_INDEX_NEEDLE_SCAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "api/types.h"
#include "server/index/index_kernels.h"
#include "server/index/indexed_part.h"
#include "server/index/sign_codes.h"

namespace attic {

struct NeedleCandidate {
  float logit = 0;  // q.k, estimated from the code
  uint32_t segment = 0;
  uint32_t row = 0;
};

// Buffers and results, reused between scans.
struct NeedleScratch {
  std::vector<std::vector<NeedleCandidate>> best;  // per query of the group; results

  std::vector<uint8_t> tables;
  std::vector<float> rotated;
  std::vector<SignQuery> sign_queries;
  std::vector<float> floors;
  std::vector<float> block_base;
  std::vector<uint16_t> thresholds;
  std::vector<CodeHit> hits;
};

// For each of `queries` (group, head_dim) the at most `count` keys in `range` with the largest
// estimated q.k, of those estimated at least floors[g]; unordered, into scratch.best.
//   super_logits: (group, super-clusters) q.c of every super-cluster
void FindNeedleCandidates(const IndexedPart& part, std::span<const float> queries,
                          std::span<const float> super_logits, PositionRange range,
                          std::span<const float> floors, size_t count, NeedleScratch& scratch,
                          ReadStatistics& read);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_NEEDLE_SCAN_H_
