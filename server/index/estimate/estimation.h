// Attention of a query over a group of rows known only by its sums.
//
// q is the query times the logit scale. With n rows k_i = c + e_i, values v_i with sum V, s2 the
// mean of e_i^2 over rows and dimensions: were e_i.q normal with deviation sigma = sqrt(s2 q'Cq),
// then sum_i exp(k_i.q) = n exp(c.q + sigma^2 / 2). C is the shape of the covariance of keys inside
// groups, pooled over a head and scaled to a mean diagonal of one. A head may use a share of sigma.
// A mean over n rows does not reach the tail of the normal distribution that carries this: beyond
// sigma = L = sqrt(2 log n) its largest row dominates and growth is linear (the freezing of the
// random energy model, Derrida 1981). So, with m = min(sigma, L),
//   mass      = n exp(c.q + m (sigma - m / 2))
//   numerator = mass (V / n + s2 (m / sigma) B'q)
// The last term is first order in e_i: keys and values are linear images of one hidden state, so
// sum_i e_i v_i' ~ n s2 B with one matrix B for all groups of a head.
//
// How wrong that may be: were rows drawn at random, the numerator of a group would have the squared
// error, in expectation,
//   doubt = (mass^2 / n) ((exp(sigma^2) - 1) T + exp(sigma^2) R)
// with T the mean squared deviation of values in the head, R that of values from what the keys of
// their group say of them; at most mass^2 (T + R), when one row is everything. Errors of real
// groups are not independent: answers multiply by a factor learnt from exact ones (error_model.h).
#ifndef ATTIC_SERVER_INDEX_ESTIMATE_ESTIMATION_H_
#define ATTIC_SERVER_INDEX_ESTIMATE_ESTIMATION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/index/segment/segment.h"

namespace attic {

// What is pooled over all groups of one level, clusters or super-clusters. Empty before any
// segment.
struct LevelTerms {
  std::vector<float> first_order;  // B: (head_dim, value_dim)
  std::vector<float> covariance;   // C: (head_dim, head_dim)
  float mean_variance = 0;         // s2, mean over rows
  float value_residual = 0;        // R, mean over rows
};

// Immutable once published.
struct EstimateTerms {
  // What masses take of sigma: keys are less spread towards some heads' queries than C says, or
  // their tails are shorter than a normal distribution's.
  float variance_share = 1;
  bool first_order = true;  // false: no B
  LevelTerms clusters;
  LevelTerms super_clusters;
  float value_variance = 0;  // T
  // A: (head_dim, value_dim), the least-squares prediction of v - V / n of a cluster from k - c.
  std::vector<float> regression;
};

// sqrt(q'Cq), so that sigma = DeviationNorm() * sqrt(s2).
float DeviationNorm(const LevelTerms& level, std::span<const float> query);

// The sums of consecutive groups that estimates need; arrays of equal length.
struct GroupSums {
  const float* log_count = nullptr;
  const float* deviation = nullptr;
  const float* deviation_limit = nullptr;
  size_t count = 0;

  static GroupSums Of(const ClusterSums& sums, size_t begin, size_t count) {
    return {sums.log_count.data() + begin, sums.deviation.data() + begin,
            sums.deviation_limit.data() + begin, count};
  }
};

// log mass of every group from `logits` (count) = c.q; in place allowed. `norm` is
// DeviationNorm().
void EstimateLogMass(const float* logits, const GroupSums& groups, float norm, float* log_mass);

// doubt of every group relative to exp(2 * log_total), in units of squared values, from `logits`
// (count) = c.q. `norm` is DeviationNorm(), whatever share of it the masses take.
void EstimateDoubt(const float* logits, const GroupSums& groups, float norm, float log_total,
                   const EstimateTerms& terms, const LevelTerms& level, float* doubt);

// sum over groups of mass * s2 * m / sigma: the factor of B'q in the numerator. `mass` is already
// exponentiated, zero for groups to leave out.
float SpreadMass(const float* mass, const GroupSums& groups, float norm);

// out (value_dim) = B'q, zeros without a matrix.
void FirstOrderDirection(std::span<const float> matrix, std::span<const float> query,
                         std::span<float> out);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATE_ESTIMATION_H_
