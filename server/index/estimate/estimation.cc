#include "server/index/estimate/estimation.h"

#include <algorithm>
#include <cmath>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr float kLogDoubtMax = 60.0f;  // more than everything; sums stay finite

}  // namespace

float DeviationNorm(const LevelTerms& level, std::span<const float> query) {
  const size_t dim = query.size();
  if (level.covariance.empty()) {
    return std::sqrt(Dot(query.data(), query.data(), dim));
  }
  float square = 0;
  for (size_t i = 0; i < dim; ++i) {
    square += query[i] * Dot(level.covariance.data() + i * dim, query.data(), dim);
  }
  return std::sqrt(std::max(square, 0.0f));
}

void EstimateLogMass(const float* logits, const GroupSums& groups, float norm, float* log_mass) {
  for (size_t i = 0; i < groups.count; ++i) {
    const float sigma = norm * groups.deviation[i];
    const float m = std::min(sigma, groups.deviation_limit[i]);
    log_mass[i] = logits[i] + groups.log_count[i] + m * (sigma - 0.5f * m);
  }
}

void EstimateDoubt(const float* logits, const GroupSums& groups, float norm, float log_total,
                   const EstimateTerms& terms, const LevelTerms& level, float* doubt) {
  for (size_t i = 0; i < groups.count; ++i) {
    const float sigma = norm * groups.deviation[i];
    const float log_count = groups.log_count[i];
    const float m = std::min(sigma, groups.deviation_limit[i]);
    const float log_mass = logits[i] + log_count + m * (sigma - 0.5f * m);
    const float log_doubt =
        2 * (log_mass - log_total) - log_count + std::min(sigma * sigma, log_count);
    doubt[i] = std::min(log_doubt, kLogDoubtMax);
  }
  ExpInPlace(0.0f, {doubt, groups.count});
  const float residual = level.mean_variance > 0 ? level.value_residual / level.mean_variance : 0;
  for (size_t i = 0; i < groups.count; ++i) {
    const float square = norm * norm * groups.deviation[i] * groups.deviation[i];
    // 1 - exp(-x) ~ x / (1 + x).
    const float spread = terms.value_variance * square / (1 + square);
    doubt[i] *= spread + residual * groups.deviation[i] * groups.deviation[i];
  }
}

float SpreadMass(const float* mass, const GroupSums& groups, float norm) {
  float sum = 0;
  for (size_t i = 0; i < groups.count; ++i) {
    const float deviation = groups.deviation[i];
    const float sigma = norm * deviation;
    const float limit = groups.deviation_limit[i];
    const float damping = sigma > limit ? limit / sigma : 1.0f;
    sum += mass[i] * deviation * deviation * damping;
  }
  return sum;
}

void FirstOrderDirection(std::span<const float> matrix, std::span<const float> query,
                         std::span<float> out) {
  std::fill(out.begin(), out.end(), 0.0f);
  if (matrix.empty()) return;
  for (size_t i = 0; i < query.size(); ++i) {
    AddScaled(query[i], matrix.data() + i * out.size(), out.size(), out.data());
  }
}

}  // namespace attic
