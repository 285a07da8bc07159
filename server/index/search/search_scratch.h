// Buffers of one searching thread.
#ifndef ATTIC_SERVER_INDEX_SEARCH_SEARCH_SCRATCH_H_
#define ATTIC_SERVER_INDEX_SEARCH_SEARCH_SCRATCH_H_

#include <vector>

#include "attention/exact_attention.h"
#include "attention/partial_attention.h"
#include "server/index/search/descent.h"
#include "server/index/search/descent_answer.h"
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
  DescentState descent;
  AnswerScratch answer;
  std::vector<AttentionAccumulator> trial;  // (group)
  std::vector<float> scores;                // (group, rows of a block)
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_SEARCH_SCRATCH_H_
