// Partial attention: the attention of one query over a set of tokens, in a form that merges exactly
// with that over any disjoint set.
//
// Over a set S of tokens with logits l_i = logit_scale * q.k_i:
//   log_sum_exp = log sum_{i in S} exp(l_i)             (natural logarithm)
//   output      = sum_{i in S} exp(l_i - log_sum_exp) v_i
// The empty set is (0, -infinity). Merging is associative and commutative (online softmax, Milakov
// and Gimelshein, arXiv 1805.02867; used for split keys in FlashDecoding).
#ifndef ATTIC_ATTENTION_PARTIAL_ATTENTION_H_
#define ATTIC_ATTENTION_PARTIAL_ATTENTION_H_

#include <limits>
#include <span>
#include <vector>

namespace attic {

inline constexpr float kEmptyLogSumExp = -std::numeric_limits<float>::infinity();

// log(exp(a) + exp(b)); either may be -infinity.
float LogAddExp(float a, float b);

// Merges (other_output, other_log_sum_exp) into (output, log_sum_exp) in place. Both outputs have
// value_dim elements. Either side may be empty.
void MergePartialAttention(std::span<const float> other_output, float other_log_sum_exp,
                           std::span<float> output, float& log_sum_exp);

// Unnormalised running form used inside scans: numerator = sum exp(l_i - max_logit) v_i,
// denominator = sum exp(l_i - max_logit). Not thread-safe.
class AttentionAccumulator {
 public:
  explicit AttentionAccumulator(size_t value_dim) : numerator_(value_dim, 0.0f) {}

  // Forgets everything; the value_dim may change.
  void Reset(size_t value_dim);

  // Makes sure the running maximum is at least `logit`, rescaling what is held; returns the
  // maximum, to which weights passed to Add refer.
  float RaiseMax(float logit);

  // Adds `weight` (already exp(logit - max_logit())) to the denominator.
  void AddWeight(double weight) { denominator_ += weight; }

  // Folds in a finished partial attention.
  void Merge(std::span<const float> output, float log_sum_exp);

  float max_logit() const { return max_logit_; }
  double denominator() const { return denominator_; }
  std::span<float> numerator() { return numerator_; }
  std::span<const float> numerator() const { return numerator_; }

  // Writes the normalised output (value_dim elements) and returns log_sum_exp; zeros and
  // kEmptyLogSumExp when nothing was added.
  float Finish(std::span<float> output) const;

 private:
  std::vector<float> numerator_;
  double denominator_ = 0.0;
  float max_logit_ = kEmptyLogSumExp;
};

}  // namespace attic

#endif  // ATTIC_ATTENTION_PARTIAL_ATTENTION_H_
