#include "server/index/estimate/least_squares.h"

#include <cmath>

namespace attic {
namespace {

// In place: the lower triangle of a (n, n) becomes L with L L' = a. False when a is not positive.
bool Decompose(std::vector<double>& a, size_t n) {
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      if (i == j) {
        if (!(sum > 0)) return false;
        a[j * n + j] = std::sqrt(sum);
      } else {
        a[i * n + j] = sum / a[j * n + j];
      }
    }
  }
  return true;
}

// x (n, m) becomes L^-1 x, then L'^-1 x.
void Substitute(const std::vector<double>& l, size_t n, size_t m, std::vector<double>& x) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) {
      for (size_t c = 0; c < m; ++c) x[i * m + c] -= l[i * n + k] * x[k * m + c];
    }
    for (size_t c = 0; c < m; ++c) x[i * m + c] /= l[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) {
      for (size_t c = 0; c < m; ++c) x[i * m + c] -= l[k * n + i] * x[k * m + c];
    }
    for (size_t c = 0; c < m; ++c) x[i * m + c] /= l[i * n + i];
  }
}

}  // namespace

std::vector<float> SolveRidge(std::span<const double> covariance, std::span<const double> cross,
                              double ridge) {
  std::vector<float> solution(cross.size(), 0.0f);
  const auto n =
      static_cast<size_t>(std::lround(std::sqrt(static_cast<double>(covariance.size()))));
  if (n == 0) return solution;
  std::vector<double> a(covariance.begin(), covariance.end());
  double trace = 0;
  for (size_t i = 0; i < n; ++i) trace += a[i * n + i];
  for (size_t i = 0; i < n; ++i) a[i * n + i] += ridge * trace / static_cast<double>(n);
  if (!Decompose(a, n)) return solution;
  std::vector<double> x(cross.begin(), cross.end());
  Substitute(a, n, cross.size() / n, x);
  for (size_t i = 0; i < x.size(); ++i) solution[i] = static_cast<float>(x[i]);
  return solution;
}

}  // namespace attic
