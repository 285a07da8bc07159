// A made-up head with needles in it: single keys, unlike their neighbours, that hold most of the
// weight of the questions asked for them, and distractors that nearly do.
#ifndef ATTIC_TESTS_BENCH_NEEDLE_HEAD_H_
#define ATTIC_TESTS_BENCH_NEEDLE_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "server/index/head_index.h"

namespace attic {

struct NeedleOptions {
  size_t tokens = 1048576;
  size_t head_dim = 128;  // also of values
  size_t group = 4;
  size_t needles = 256;
  size_t distractors = 8;  // of each needle
  // Of the training queries, for needles; as many more are hidden for them, so that no query is
  // learnt that is asked.
  double training_share = 0.5;
  uint64_t seed = 1;
};

// Every token has a hidden state: a topic that lasts for a stretch, a token that recurs, a slow
// drift and noise. Its key is a linear image of the state, plus a mean, and so is its value, plus
// noise. Queries are an image of such states that turns products of queries and keys into products
// of states; each query head weighs the elements of the state in its own way.
//
// A needle is a state of its own. The one question for it is a state near it, and each query is of
// the length at which the needle is estimated to have a share of the weight drawn from
// [kShareMin, kShareMax] against all tokens but its distractors, or as near as it can come. These
// have logits that are lower by kMarginMin to kMarginMax nats. Positions are random. Deterministic;
// not thread-safe.
class NeedleHead {
 public:
  static constexpr double kShareMin = 0.65, kShareMax = 0.99;
  static constexpr double kMarginMin = 3, kMarginMax = 7;

  // Twice the needles and their distractors must be fewer than the tokens.
  explicit NeedleHead(const NeedleOptions& options);

  HeadShape shape() const;

  // Appends all tokens, in bfloat16. To be called once.
  void AppendTo(HeadIndex& index);

  // (groups, group, head_dim), evenly mixed: for training needles, and about ordinary states, which
  // are as long.
  std::vector<float> TrainingQueries(size_t groups);

  // (group, head_dim). Training needles follow the others.
  std::span<const float> question(size_t needle) const;
  int64_t position(size_t needle) const { return spots_[needle * (1 + options_.distractors)]; }

 private:
  using State = std::span<float>;

  void DrawMaps();
  void DrawNeedles();
  void DrawQuestion(size_t needle, std::span<const float> sample);
  // The factor for the direction at which the needle has `share` of the weight.
  double LengthFor(std::span<const float> direction, size_t needle, double share,
                   std::span<const float> sample) const;
  // In directions in which the question's queries see no difference.
  void DrawDistractors(size_t needle, std::vector<std::vector<float>> directions,
                       double needle_logit);
  // A state of any place in the text.
  void DrawState(State state);
  // The state of the next token.
  void NextState(State state);
  void Mix(size_t topic, size_t token, std::span<const float> drift, State state);
  void StepDrift();
  // Weights of one query head times a state.
  std::vector<float> Direction(size_t query_head, std::span<const float> state) const;
  void AppendQuery(std::span<const float> direction, double length, std::vector<float>& queries);

  void FillNormal(std::span<float> x) {
    for (float& element : x) element = normal_(random_);
  }
  std::span<float> needle_state(size_t needle, size_t copy) {
    return {&states_[(needle * (1 + options_.distractors) + copy) * dim()], dim()};
  }
  size_t dim() const { return options_.head_dim; }

  const NeedleOptions options_;
  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
  std::discrete_distribution<size_t> topic_of_, token_of_;
  std::vector<float> topics_, vocabulary_, drift_from_, drift_to_;
  std::vector<float> key_map_, value_map_, query_map_;  // (head_dim, head_dim)
  std::vector<float> key_mean_, weights_;               // weights: (group, head_dim)
  std::vector<float> states_;                           // of needles, each before its distractors
  std::vector<int64_t> spots_;                          // their positions
  std::vector<float> questions_;
  double mean_length_ = 0;  // of directions' factors
  size_t topic_ = 0, next_ = 0;
};

}  // namespace attic

#endif  // ATTIC_TESTS_BENCH_NEEDLE_HEAD_H_
