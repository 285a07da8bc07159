#include "gpu_worker/model/layer_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <random>
#include <vector>

namespace attic::worker {
namespace {

constexpr uint64_t kSeed = 3;

std::vector<float> Normal(size_t count, float deviation) {
  std::mt19937_64 random(kSeed + count);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

TEST(LayerMathTest, RmsNormRows) {
  const size_t rows = 3, size = 37;
  std::vector<float> x = Normal(rows * size, 2.0f);
  const std::vector<float> weight = Normal(size, 1.0f);
  const std::vector<float> in = x;
  RmsNormRows(x.data(), rows, weight, 1e-5f, x.data());
  for (size_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (size_t i = 0; i < size; ++i) squares += double{in[r * size + i]} * in[r * size + i];
    const double factor = 1.0 / std::sqrt(squares / size + 1e-5);
    for (size_t i = 0; i < size; ++i) {
      EXPECT_NEAR(x[r * size + i], in[r * size + i] * factor * weight[i], 1e-5);
    }
  }
}

// A rotation is a product with exp(i * angle), exact even a million tokens in.
TEST(LayerMathTest, RotateHeads) {
  const size_t count = 2, heads = 3, half = 4;
  const int64_t first = 1'000'000;
  const double theta = 10000.0;
  std::vector<float> cosines(count * half), sines(count * half);
  FillRotaryTable(first, count, half, theta, cosines.data(), sines.data());
  std::vector<float> x = Normal(count * heads * 2 * half, 1.0f);
  const std::vector<float> in = x;
  RotateHeads(cosines.data(), sines.data(), count, heads, half, x.data());
  for (size_t t = 0; t < count; ++t) {
    for (size_t h = 0; h < heads; ++h) {
      for (size_t i = 0; i < half; ++i) {
        const size_t at = (t * heads + h) * 2 * half + i;
        const double angle =
            (first + static_cast<int64_t>(t)) * std::pow(theta, -static_cast<double>(i) / half);
        const std::complex<double> rotated =
            std::complex<double>(in[at], in[at + half]) * std::polar(1.0, angle);
        EXPECT_NEAR(x[at], rotated.real(), 1e-5);
        EXPECT_NEAR(x[at + half], rotated.imag(), 1e-5);
      }
    }
  }
}

TEST(LayerMathTest, SwiGluOfAnySize) {
  std::vector<float> gate = Normal(50, 5.0f);
  gate[0] = 1e30f;
  gate[1] = -1e30f;
  const std::vector<float> up = Normal(50, 1.0f);
  const std::vector<float> in = gate;
  std::vector<float> scratch(50);
  SwiGlu(gate, up, scratch.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double expected = in[i] / (1.0 + std::exp(-double{in[i]})) * up[i];
    EXPECT_NEAR(gate[i], expected, 1e-5 * (1.0 + std::abs(expected))) << in[i];
  }
}

}  // namespace
}  // namespace attic::worker
