// Small dense least squares.
#ifndef ATTIC_SERVER_INDEX_ESTIMATE_LEAST_SQUARES_H_
#define ATTIC_SERVER_INDEX_ESTIMATE_LEAST_SQUARES_H_

#include <span>
#include <vector>

namespace attic {

// Solves (C + r I) X = Y with r = ridge times the mean of C's diagonal, by Cholesky's
// decomposition.
//   covariance: C (n, n), symmetric and positive semidefinite; cross: Y (n, m)
// Returns X (n, m); zeros when C is zero or so far from positive that the decomposition fails.
std::vector<float> SolveRidge(std::span<const double> covariance, std::span<const double> cross,
                              double ridge);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATE_LEAST_SQUARES_H_
