// Attention over the tail beside an index: all keys are scored first, and values are read, once
// more is known, only where they can be seen in the answer.
#ifndef ATTIC_SERVER_INDEX_SEARCH_TAIL_SCORES_H_
#define ATTIC_SERVER_INDEX_SEARCH_TAIL_SCORES_H_

#include <cstddef>
#include <span>
#include <vector>

#include "api/types.h"
#include "attention/partial_attention.h"
#include "server/index/tail.h"

namespace attic {

// Reused between queries. Not thread-safe.
class TailScores {
 public:
  // Nothing is scored.
  void Clear(size_t group);

  // Scores the keys of `range` held by `tail`, which must stay valid until Add.
  //   queries: (group, head_dim), times the logit scale
  void Score(const TailView& tail, PositionRange range, std::span<const float> queries,
             size_t group, ReadStatistics& read);

  // log_sum_exp of what is scored, of query g.
  float log_mass(size_t g) const { return log_mass_[g]; }

  // Adds what is scored to the accumulators (group). Blocks of rows are left out, values unread,
  // whose logits all lie kNegligible below what the accumulators or the tail hold: together they
  // would change an answer by less than its rounding.
  void Add(std::span<AttentionAccumulator> accumulators, ReadStatistics& read);

 private:
  // exp(-kNegligible) times the tokens of a tail is below the precision of bfloat16 by far.
  static constexpr float kNegligible = 20.0f;

  struct Block {
    VectorsView values;
    size_t scores;  // where its (group, values.count) begin in scores_
  };

  void ScoreBlock(const VectorsView& keys, const VectorsView& values,
                  std::span<const float> queries);

  size_t group_ = 0;
  std::vector<Block> blocks_;
  std::vector<float> scores_;
  std::vector<float> peaks_;     // (blocks, group): largest score
  std::vector<float> peak_;      // (group)
  std::vector<float> log_mass_;  // (group)
  std::vector<float> weights_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_TAIL_SCORES_H_
