// Attention of a query over a group of rows known only by its sums.
//
// q is the query times the logit scale. With n rows k_i = c + e_i, values v_i with sum V, s2 the
// mean of e_i^2 over rows and dimensions: were e_i.q normal with deviation sigma = |q| sqrt(s2),
// then sum_i exp(k_i.q) = n exp(c.q + sigma^2 / 2).
// A mean over n rows does not reach the tail of the normal distribution that carries this: beyond
// sigma = L = sqrt(2 log n) its largest row dominates and growth is linear (the freezing of the
// random energy model, Derrida 1981). So, with m = min(sigma, L),
//   mass      = n exp(c.q + m (sigma - m / 2))
//   numerator = mass (V / n + s2 (m / sigma) B'q)
// The last term is first order in e_i: keys and values are linear images of one hidden state, so
// sum_i e_i v_i' ~ n s2 B with one matrix B for all groups of a head.
#ifndef ATTIC_SERVER_INDEX_ESTIMATION_H_
#define ATTIC_SERVER_INDEX_ESTIMATION_H_

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "server/index/segment.h"

namespace attic {

// Which terms are used, and the matrix B of each level. Immutable once published.
struct EstimateTerms {
  bool variance = true;                     // false: m = 0 in the mass
  bool pooled = true;                       // false: no B
  std::vector<float> cluster_matrix;        // (head_dim, value_dim), empty before any segment
  std::vector<float> super_cluster_matrix;  // likewise
};

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

// log mass of every group from `logits` (count) = c.q; in place allowed. `norm` is |q|, or 0 to
// leave the variance out.
void EstimateLogMass(const float* logits, const GroupSums& groups, float norm, float* log_mass);

// sum over groups of mass * s2 * m / sigma: the factor of B'q in the numerator. `mass` is already
// exponentiated, zero for groups to leave out. `norm` is |q|.
float SpreadMass(const float* mass, const GroupSums& groups, float norm);

// out (value_dim) = B'q, zeros without a matrix.
void FirstOrderDirection(std::span<const float> matrix, std::span<const float> query,
                         std::span<float> out);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATION_H_
