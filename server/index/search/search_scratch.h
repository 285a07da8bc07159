// Buffers of one searching thread.
#ifndef ATTIC_SERVER_INDEX_SEARCH_SEARCH_SCRATCH_H_
#define ATTIC_SERVER_INDEX_SEARCH_SEARCH_SCRATCH_H_

#include <vector>

#include "attention/exact_attention.h"
#include "attention/partial_attention.h"
#include "server/index/search/cluster_selection.h"
#include "server/index/search/tail_scores.h"

namespace attic {

class SearchScratch {
 public:
  explicit SearchScratch(ThreadPool* helpers) : helpers(helpers) {}

  ThreadPool* const helpers;  // may be null
  ScanScratch scan;
  std::vector<AttentionAccumulator> accumulators;  // (group)
  std::vector<float> queries;                      // (group, head_dim), times the logit scale
  TailScores tail;
  std::vector<float> log_mass;  // (group)
  ClusterSelection selection;
  std::vector<float> mass;       // (group, some super-clusters)
  std::vector<float> sums;       // (group, value_dim)
  std::vector<float> direction;  // (value_dim)
  std::vector<float> scores;     // (group, rows of a block)
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_SEARCH_SCRATCH_H_
