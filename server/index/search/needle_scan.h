// Finds single keys that matter among all keys by scanning their one-bit codes.
//
// A key unlike its neighbours vanishes in the mean of its cluster, so neither sums nor the centroid
// graph lead to it; its code does. A key is found when its logit reaches the floor, whatever the
// error of its code within kCodeErrors standard deviations, as long as no more than the allowed
// number of candidates rank before it. A block of codes is skipped when |q| |r| says that no key of
// it can reach the floor.
#ifndef ATTIC_SERVER_INDEX_SEARCH_NEEDLE_SCAN_H_
#define ATTIC_SERVER_INDEX_SEARCH_NEEDLE_SCAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "api/types.h"
#include "base/thread_pool.h"
#include "server/index/codes/code_kernels.h"
#include "server/index/codes/sign_codes.h"
#include "server/index/indexed_part.h"
#include "server/index/search/row_reader.h"

namespace attic {

struct NeedleCandidate {
  float logit = 0;   // q.k: estimated from the code while scanning, exact in the result
  float base = 0;    // q.c of the reference its code is relative to
  float factor = 0;  // f of its code
  uint32_t segment = 0;
  uint32_t slot = 0;  // of the segment's codes
  uint32_t row = 0;   // of the segment; set in the result
  bool in_range = false;
};

// Blocks to be scanned for one query, an element each.
struct ListedBlocks {
  size_t count = 0;
  std::vector<uint32_t> super;
  std::vector<uint32_t> block;  // by its number through all segments
  std::vector<const uint8_t*> codes;
  std::vector<float> base, radius, factor;  // as in CodeBlocks
};

// Buffers of one stretch of super-clusters, which one thread scans.
struct NeedleStretchScratch {
  std::vector<std::vector<NeedleCandidate>> best;  // per query of the group; results
  ReadStatistics read;
  RowReader rows;

  std::vector<uint32_t> supers;
  std::vector<ListedBlocks> listed;                       // (2, group): of this turn and the next
  std::vector<const uint8_t*> ahead;                      // of the next turn, not in the cache yet
  std::vector<int32_t> sum_min, sum_offset, product_min;  // limits of those scanned
  std::vector<CodeHit> hits;
};

// Buffers and results, reused between scans.
struct NeedleScratch {
  std::vector<std::vector<NeedleCandidate>> best;  // per query of the group; results
  absl::Status status;  // not OK when keys could not be read: then results are not complete
  RowReader rows;

  std::vector<uint8_t> tables;  // (group) tables of a query each
  std::vector<float> rotated;
  std::vector<float> sample;
  std::vector<uint32_t> blocks_read;  // (super-clusters): of each, counted in the statistics
  std::vector<NeedleStretchScratch> stretches;
};

struct NeedleRequest {
  std::span<const float> queries;       // (group, head_dim), times the logit scale
  std::span<const float> super_logits;  // (group, super-clusters): q.c of every super-cluster
  PositionRange range;
  float log_share_min = 0;  // a key matters when its logit is at least log_total + log_share_min
  size_t count = 0;         // candidates scored exactly for a query, at most
  // What is found raises log_total, and with it what matters; false: log_total stays as it is.
  bool raises = true;
};

// Sets scratch.best[g] to the keys found, best first, for each query of the group, and raises
// log_total (group), the estimated log_sum_exp over everything, to the largest logit found. Threads
// of `helpers`, if not null, take stretches of a long scan; what is found does not depend on them.
void FindNeedles(const IndexedPart& part, const NeedleRequest& request, ThreadPool* helpers,
                 std::span<float> log_total, NeedleScratch& scratch, ReadStatistics& read);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_NEEDLE_SCAN_H_
