// Turns what a walk down the levels knows into attention.
#ifndef ATTIC_SERVER_INDEX_SEARCH_DESCENT_ANSWER_H_
#define ATTIC_SERVER_INDEX_SEARCH_DESCENT_ANSWER_H_

#include <span>
#include <vector>

#include "api/types.h"
#include "attention/partial_attention.h"
#include "server/index/indexed_part.h"
#include "server/index/search/descent.h"

namespace attic {

// Buffers, reused between queries.
struct AnswerScratch {
  std::vector<float> super_mass;    // (group, super-clusters)
  std::vector<float> cluster_mass;  // as cluster_log_mass, of clusters without codes
  std::vector<float> mean_weight;   // the same plus the rows of coded clusters not exact
  std::vector<float> row_weight;    // (group, exact rows)
  std::vector<float> codes;         // (group, code_dim): sum of decoded residuals, rotated
  std::vector<double> code_offset;  // (group)
  std::vector<float> mass_factor;   // (group): of masses relative to exp(reference)
  std::vector<float> sums;          // (group, value_dim)
  std::vector<float> some;          // (group, some super-clusters)
  std::vector<float> direction;     // (value_dim)
  std::vector<float> residual;      // (head_dim)
};

// Adds every row that `state`, of a walk that could read all its rows, stands for to the
// accumulators (group): exact rows with their values, all others by estimate.
//   queries: (group, head_dim), times the logit scale
void AddDescent(const IndexedPart& part, std::span<const float> queries, const DescentState& state,
                std::span<AttentionAccumulator> accumulators, AnswerScratch& scratch,
                ReadStatistics& read);

// The same for the super-clusters alone, those opened included: what can be said of an output
// before anything is refined.
void AddSuperClusters(const IndexedPart& part, std::span<const float> queries,
                      const DescentState& state, std::span<AttentionAccumulator> accumulators,
                      AnswerScratch& scratch, ReadStatistics& read);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_DESCENT_ANSWER_H_
