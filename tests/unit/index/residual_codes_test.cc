#include "server/index/codes/residual_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/index/codes/residual_kernels.h"
#include "tests/unit/index/normal_floats.h"

namespace attic {
namespace {

uint8_t Level(const ResidualCodes& codes, size_t row, size_t j) {
  const size_t quarter = codes.row_bytes;
  return (codes.row(row)[j % quarter] >> (2 * (j / quarter))) & 3;
}

float Factor(const ResidualCodes& codes, size_t row, size_t group) {
  return static_cast<float>(codes.factor[row]) * codes.factor_unit[group];
}

// Rows in groups of 9, 0 and the rest.
struct Coded {
  Coded(size_t dim, size_t rows, uint32_t seed)
      : rotation(dim), residuals(NormalFloats(rows * dim, seed)), begin{0, 9, 9, uint32_t(rows)} {
    for (size_t i = 0; i < 9 * dim; ++i) residuals[i] *= 0.01f;  // groups have their own scale
    codes = MakeResidualCodes(rotation, residuals, begin);
  }
  size_t rows() const { return begin.back(); }
  float factor(size_t row) const { return Factor(codes, row, row < 9 ? 0 : 2); }

  SignRotation rotation;
  std::vector<float> residuals;
  std::vector<uint32_t> begin;
  ResidualCodes codes;
};

class ResidualCodesTest : public testing::TestWithParam<size_t> {};
class ResidualErrorTest : public testing::TestWithParam<size_t> {};

TEST_P(ResidualErrorTest, AFixedShareOfTheResidualIsLost) {
  const size_t dim = GetParam();
  const Coded c(dim, 400, 7);
  std::vector<float> rotated(c.rotation.code_dim());
  double lost = 0, all = 0;
  for (size_t row = 0; row < c.rows(); ++row) {
    c.rotation.Apply(c.residuals.data() + row * dim, rotated.data());
    double squares = 0, missing = 0;
    for (size_t j = 0; j < rotated.size(); ++j) {
      const double decoded = c.factor(row) * (Level(c.codes, row, j) - kResidualMiddle);
      squares += double{rotated[j]} * rotated[j];
      missing += (rotated[j] - decoded) * (rotated[j] - decoded);
    }
    lost += missing / squares;
    all += 1;
  }
  EXPECT_NEAR(lost / all, kResidualLost, 0.025);
}

TEST_P(ResidualErrorTest, LogitsAreEstimatedWithTheStatedVariance) {
  const size_t dim = GetParam();
  const Coded c(dim, 900, 8);
  const size_t code_dim = ResidualCodeDim(c.rotation);
  std::vector<float> rotated(c.rotation.code_dim());
  std::vector<int16_t> coefficients(code_dim);
  double square = 0, expected = 0;
  for (uint32_t seed = 100; seed < 120; ++seed) {
    const std::vector<float> query = NormalFloats(dim, seed);
    const ResidualQuery q =
        MakeResidualQuery(c.rotation, query.data(), rotated.data(), coefficients.data());
    std::vector<float> logits(c.rows());
    const ResidualScoring scoring{
        .coefficients = coefficients.data(), .step = q.step, .offset = q.offset};
    float best = 0;
    ScoreResiduals(c.codes.rows(2, 9, c.rows() - 9), {&scoring, 1}, logits.data() + 9, {&best, 1});
    for (size_t row = 9; row < c.rows(); ++row) {
      double exact = 0;
      for (size_t j = 0; j < dim; ++j) exact += double{query[j]} * c.residuals[row * dim + j];
      square += (logits[row] - exact) * (logits[row] - exact);
      expected += q.variance * c.factor(row) * c.factor(row);
    }
  }
  EXPECT_NEAR(square / expected, 1.0, 0.2);
}

TEST_P(ResidualCodesTest, LogitsMatchPlainLoops) {
  const Coded c(GetParam(), 177, 9);
  const size_t code_dim = ResidualCodeDim(c.rotation);
  std::mt19937 random(3);
  for (const size_t queries : {1u, 3u, 4u, 6u, 9u}) {
    std::vector<int16_t> coefficients(queries * code_dim);
    for (int16_t& q : coefficients) q = static_cast<int16_t>(int(random() % 16383) - 8191);
    std::vector<ResidualScoring> scorings;
    for (size_t g = 0; g < queries; ++g) {
      scorings.push_back({.coefficients = coefficients.data() + g * code_dim,
                          .step = 0.001f,
                          .offset = 0.5f,
                          .half_variance = 0.25f,
                          .base = -3.0f - static_cast<float>(g)});
    }
    for (const size_t begin : {9u, 50u, 160u, 174u, 177u}) {
      const size_t count = c.rows() - begin;
      std::vector<float> logits(queries * count), best(queries);
      ScoreResiduals(c.codes.rows(2, begin, count), scorings, logits.data(), best);
      for (size_t g = 0; g < queries; ++g) {
        float largest = -std::numeric_limits<float>::infinity();
        for (size_t i = 0; i < count; ++i) {
          int32_t sum = 0;
          for (size_t j = 0; j < code_dim; ++j) {
            sum += coefficients[g * code_dim + j] * Level(c.codes, begin + i, j);
          }
          const double f = c.factor(begin + i);
          const double logit = scorings[g].base + f * (0.001 * sum + 0.5 + 0.25 * f);
          ASSERT_NEAR(logits[g * count + i], logit, 1e-4 * (1 + std::abs(logit)))
              << queries << " " << g << " " << begin << " " << i;
          largest = std::max(largest, logits[g * count + i]);
        }
        EXPECT_EQ(best[g], largest);
      }
    }
  }
}

TEST_P(ResidualCodesTest, SumsOfCodesMatchPlainLoops) {
  const Coded c(GetParam(), 177, 9);
  const size_t code_dim = ResidualCodeDim(c.rotation);
  std::mt19937 random(4);
  for (const size_t begin : {9u, 50u, 160u, 177u}) {
    const size_t count = c.rows() - begin;
    const CodedRows rows = c.codes.rows(2, begin, count);
    std::vector<float> masses = NormalFloats(count, 5), out(code_dim, 1.0f);
    std::vector<uint8_t> exact(count);
    for (uint8_t& flag : exact) flag = static_cast<uint8_t>(random() % 3);
    const float less = 0.75f;
    const float total = AddResiduals(rows, masses.data(), exact.data(), less, out.data());
    double expected_total = 0, squares = 0;
    for (size_t i = 0; i < count; ++i) {
      const double f = c.factor(begin + i);
      squares += f * f;
      masses[i] = exact[i] != 0 ? 0.0f : masses[i] - less;
      expected_total += masses[i] * f;
    }
    EXPECT_NEAR(total, expected_total, 1e-4);
    EXPECT_NEAR(SumFactorSquares(rows), squares, 1e-4 * squares);
    for (size_t j = 0; j < code_dim; ++j) {
      double sum = 1;
      for (size_t i = 0; i < count; ++i) {
        sum += masses[i] * c.factor(begin + i) * Level(c.codes, begin + i, j);
      }
      ASSERT_NEAR(out[j], sum, 1e-3) << begin << " " << j;
    }
  }
}

// Rotated residuals of few dimensions are not normal.
INSTANTIATE_TEST_SUITE_P(Dims, ResidualErrorTest, testing::Values(24, 32, 64, 80, 128, 300));
INSTANTIATE_TEST_SUITE_P(Dims, ResidualCodesTest, testing::Values(3, 24, 32, 64, 80, 128, 300));

TEST(ResidualCodesTest, KeysEqualToTheirCentroidHaveEmptyCodes) {
  const SignRotation rotation(16);
  const std::vector<float> residuals(4 * 16, 0.0f);
  const std::vector<uint32_t> begin{0, 4};
  const ResidualCodes codes = MakeResidualCodes(rotation, residuals, begin);
  for (size_t row = 0; row < 4; ++row) EXPECT_EQ(Factor(codes, row, 0), 0.0f);
}

}  // namespace
}  // namespace attic
