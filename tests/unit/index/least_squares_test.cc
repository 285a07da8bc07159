#include "server/index/estimate/least_squares.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <vector>

namespace attic {
namespace {

TEST(LeastSquaresTest, FindsTheMatrixThatMadeTheData) {
  constexpr size_t kN = 12, kM = 5, kRows = 400;
  std::printf("seed 3\n");
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> matrix(kN * kM), covariance(kN * kN), cross(kN * kM), x(kN), y(kM);
  for (double& element : matrix) element = normal(random);
  for (size_t row = 0; row < kRows; ++row) {
    for (double& element : x) element = normal(random);
    for (size_t c = 0; c < kM; ++c) {
      y[c] = 0;
      for (size_t i = 0; i < kN; ++i) y[c] += x[i] * matrix[i * kM + c];
    }
    for (size_t i = 0; i < kN; ++i) {
      for (size_t j = 0; j < kN; ++j) covariance[i * kN + j] += x[i] * x[j];
      for (size_t c = 0; c < kM; ++c) cross[i * kM + c] += x[i] * y[c];
    }
  }
  const std::vector<float> found = SolveRidge(covariance, cross, 1e-9);
  for (size_t i = 0; i < matrix.size(); ++i) EXPECT_NEAR(found[i], matrix[i], 1e-4);
}

TEST(LeastSquaresTest, NothingIsPredictedFromKeysThatDoNotDiffer) {
  const std::vector<double> zeros(9, 0.0), cross(6, 1.0);
  EXPECT_EQ(SolveRidge(zeros, cross, 1e-4), std::vector<float>(6, 0.0f));
  EXPECT_TRUE(SolveRidge({}, {}, 1e-4).empty());
}

}  // namespace
}  // namespace attic
