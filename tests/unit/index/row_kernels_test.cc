#include "server/index/search/row_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/unit/index/normal_floats.h"

namespace attic {
namespace {

TEST(RowKernelsTest, SumsOfRowsMatchAPlainLoop) {
  std::mt19937 random(6);
  for (const size_t count : {0, 1, 7, 16, 33, 100}) {
    const std::vector<float> logits = NormalFloats(count, 1);
    const float reference = 0.5f;
    std::vector<float> masses(count);
    std::vector<uint8_t> exact(count);
    for (uint8_t& flag : exact) flag = static_cast<uint8_t>(random() % 3);
    const RowSums weighed = WeighRows(reference, logits.data(), exact.data(), count, masses.data());
    float rest = 0, rest_squares = 0, all = 0, squares = 0, best_mass = 0;
    float best = -std::numeric_limits<float>::infinity();
    for (size_t i = 0; i < count; ++i) {
      ASSERT_NEAR(masses[i], std::exp(logits[i] - reference), 1e-5 * masses[i]);
      all += masses[i];
      squares += masses[i] * masses[i];
      if (exact[i] != 0) continue;
      rest += masses[i];
      rest_squares += masses[i] * masses[i];
      best = std::max(best, logits[i]);
      best_mass = std::max(best_mass, masses[i]);
    }
    const RowSums summed = SumRows(logits.data(), masses.data(), exact.data(), count);
    for (const RowSums& sums : {weighed, summed}) {
      EXPECT_NEAR(sums.rest, rest, 1e-3);
      EXPECT_NEAR(sums.rest_squares, rest_squares, 1e-2);
      EXPECT_NEAR(sums.exact, all - rest, 1e-3);
      EXPECT_NEAR(sums.exact_squares, squares - rest_squares, 1e-2);
      EXPECT_EQ(sums.best_rest, best);
      EXPECT_EQ(sums.best_mass, best_mass);
    }
  }
}

TEST(RowKernelsTest, FindsTheRowsThatReachAFloor) {
  std::mt19937 random(8);
  for (const size_t count : {0, 1, 15, 16, 17, 95}) {
    const std::vector<float> values = NormalFloats(count, 3);
    std::vector<uint8_t> exact(count);
    for (uint8_t& flag : exact) flag = static_cast<uint8_t>(random() % 2);
    for (const float floor : {-100.0f, 0.0f, 1.0f, 100.0f}) {
      std::vector<uint32_t> expected, found(count + 1);
      for (uint32_t i = 0; i < count; ++i) {
        if (exact[i] == 0 && values[i] >= floor) expected.push_back(i);
      }
      found.resize(FindRows(values.data(), exact.data(), count, floor, found.data()));
      EXPECT_EQ(found, expected) << count << " " << floor;
    }
  }
}

}  // namespace
}  // namespace attic
