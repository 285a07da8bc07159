// Attention over the few keys a search found.
#ifndef ATTIC_CLIENT_CLI_BENCH_FOUND_KEYS_ATTENTION_H_
#define ATTIC_CLIENT_CLI_BENCH_FOUND_KEYS_ATTENTION_H_

#include <span>
#include <vector>

#include "attention/element_type.h"
#include "server/index/graph/exact_neighbors.h"

namespace attic::cli {

// Softmax over the found keys alone: the others count as absent. Not thread-safe.
class FoundKeysAttention {
 public:
  // output: (values.dim). Returns log_sum_exp of logit_scale * score over `found`, natural
  // logarithm. `found` is not empty.
  double Attend(std::span<const ScoredNode> found, double logit_scale, const VectorsView& values,
                std::span<float> output);

 private:
  std::vector<std::byte> rows_;  // the found values, gathered
  std::vector<float> weights_;
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_FOUND_KEYS_ATTENTION_H_
