#include "attention/partial_attention.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace attic {

float LogAddExp(float a, float b) {
  const float high = std::max(a, b), low = std::min(a, b);
  return low == kEmptyLogSumExp ? high : high + std::log1p(std::exp(low - high));
}

void MergePartialAttention(std::span<const float> other_output, float other_log_sum_exp,
                           std::span<float> output, float& log_sum_exp) {
  ATTIC_CHECK(other_output.size() == output.size());
  if (other_log_sum_exp == kEmptyLogSumExp) return;
  if (log_sum_exp == kEmptyLogSumExp) {
    std::copy(other_output.begin(), other_output.end(), output.begin());
    log_sum_exp = other_log_sum_exp;
    return;
  }
  // In double: the weights are exact differences of the two log-sum-exps, and at least one is 1.
  const double max = std::max(log_sum_exp, other_log_sum_exp);
  const double own = std::exp(log_sum_exp - max);
  const double other = std::exp(other_log_sum_exp - max);
  const double sum = own + other;
  const float own_share = static_cast<float>(own / sum);
  const float other_share = static_cast<float>(other / sum);
  for (size_t i = 0; i < output.size(); ++i) {
    output[i] = own_share * output[i] + other_share * other_output[i];
  }
  log_sum_exp = static_cast<float>(max + std::log(sum));
}

void AttentionAccumulator::Reset(size_t value_dim) {
  numerator_.assign(value_dim, 0.0f);
  denominator_ = 0.0;
  max_logit_ = kEmptyLogSumExp;
}

float AttentionAccumulator::RaiseMax(float logit) {
  if (!(logit > max_logit_)) return max_logit_;
  if (max_logit_ != kEmptyLogSumExp) {
    const double factor = std::exp(static_cast<double>(max_logit_) - logit);
    denominator_ *= factor;
    const float narrow_factor = static_cast<float>(factor);
    for (float& x : numerator_) x *= narrow_factor;
  }
  max_logit_ = logit;
  return max_logit_;
}

void AttentionAccumulator::Merge(std::span<const float> output, float log_sum_exp) {
  ATTIC_CHECK(output.size() == numerator_.size());
  if (log_sum_exp == kEmptyLogSumExp) return;
  // A finished part is one token of value `output` and logit `log_sum_exp`.
  const double weight = std::exp(static_cast<double>(log_sum_exp) - RaiseMax(log_sum_exp));
  denominator_ += weight;
  const float narrow_weight = static_cast<float>(weight);
  for (size_t i = 0; i < output.size(); ++i) numerator_[i] += narrow_weight * output[i];
}

float AttentionAccumulator::Finish(std::span<float> output) const {
  ATTIC_CHECK(output.size() == numerator_.size());
  if (!(denominator_ > 0.0)) {
    std::fill(output.begin(), output.end(), 0.0f);
    return kEmptyLogSumExp;
  }
  for (size_t i = 0; i < output.size(); ++i) {
    output[i] = static_cast<float>(numerator_[i] / denominator_);
  }
  return static_cast<float>(max_logit_ + std::log(denominator_));
}

}  // namespace attic
