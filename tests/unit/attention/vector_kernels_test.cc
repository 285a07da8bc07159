#include "attention/vector_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/attention/test_vectors.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
const size_t kDims[] = {1, 7, 16, 31, 32, 33, 48, 64, 80, 128, 130};

uint32_t Seed() {
  static const uint32_t seed = std::random_device()();
  return seed;
}

TEST(VectorKernelsTest, DotDistanceAndAddScaledMatchDoubles) {
  SCOPED_TRACE("seed " + std::to_string(Seed()));
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::mt19937 random(Seed());
    for (size_t dim = 0; dim < 140; ++dim) {
      const std::vector<float> a = RandomFloats(random, dim), b = RandomFloats(random, dim);
      std::vector<float> y(b);
      y.push_back(77.0f);
      AddScaled(1.5f, a.data(), dim, y.data());
      double dot = 0, distance = 0;
      for (size_t i = 0; i < dim; ++i) {
        dot += static_cast<double>(a[i]) * b[i];
        distance += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
        ASSERT_NEAR(y[i], 1.5 * a[i] + b[i], 1e-5);
      }
      ASSERT_EQ(y[dim], 77.0f);
      ASSERT_NEAR(Dot(a.data(), b.data(), dim), dot, 2e-5);
      ASSERT_NEAR(SquaredDistance(a.data(), b.data(), dim), distance, 1e-6 * distance + 1e-6);
    }
  });
}

TEST(VectorKernelsTest, DistancesOfRowsMatchDoubles) {
  SCOPED_TRACE("seed " + std::to_string(Seed()));
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::mt19937 random(Seed());
    for (const ElementType type : kElementTypes) {
      for (size_t dim = 0; dim < 140; ++dim) {
        const TestVectors rows(random, type, 2, dim);
        const std::vector<float> elements = rows.floats();
        double distance = 0;
        for (size_t i = 0; i < dim; ++i) {
          const double difference = static_cast<double>(elements[i]) - elements[dim + i];
          distance += difference * difference;
        }
        const VectorsView view = rows.view();
        ASSERT_NEAR(SquaredDistance(type, view.row(0), view.row(1), dim), distance,
                    1e-6 * distance + 1e-6);
      }
    }
  });
}

TEST(VectorKernelsTest, ScoresMatchDoubles) {
  SCOPED_TRACE("seed " + std::to_string(Seed()));
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::mt19937 random(Seed());
    for (const ElementType type : kElementTypes) {
      for (const size_t dim : kDims) {
        const size_t query_count = 1 + random() % 9, count = random() % 90;
        const TestVectors rows(random, type, count, dim);
        const std::vector<float> elements = rows.floats();
        const std::vector<float> queries = RandomFloats(random, query_count * dim);
        std::vector<float> scores(query_count * count + 1, 77.0f);
        ScoreVectors(queries.data(), query_count, rows.view(), scores.data());
        ASSERT_EQ(scores.back(), 77.0f);
        for (size_t g = 0; g < query_count; ++g) {
          for (size_t i = 0; i < count; ++i) {
            double expected = 0;
            for (size_t j = 0; j < dim; ++j) {
              expected += static_cast<double>(queries[g * dim + j]) * elements[i * dim + j];
            }
            ASSERT_NEAR(scores[g * count + i], expected, 3e-5) << "dim " << dim << " row " << i;
          }
        }
      }
    }
  });
}

// Row i of `weights` is zero for every query when i % 3 == 0.
std::vector<float> SparseWeights(std::mt19937& random, size_t query_count, size_t count) {
  std::vector<float> weights = RandomFloats(random, query_count * count);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (i % count % 3 == 0) weights[i] = 0.0f;
  }
  return weights;
}

TEST(VectorKernelsTest, WeightedSumsMatchDoubles) {
  SCOPED_TRACE("seed " + std::to_string(Seed()));
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::mt19937 random(Seed());
    for (const ElementType type : kElementTypes) {
      for (const size_t dim : kDims) {
        const size_t query_count = 1 + random() % 20, count = 1 + random() % 300;
        const TestVectors rows(random, type, count, dim);
        const std::vector<float> elements = rows.floats();
        const std::vector<float> weights = SparseWeights(random, query_count, count);
        const std::vector<float> before = RandomFloats(random, query_count * dim);
        std::vector<float> sums(before);
        sums.push_back(77.0f);
        AddWeightedVectors(weights.data(), query_count, rows.view(), sums.data());
        ASSERT_EQ(sums.back(), 77.0f);
        std::vector<const std::byte*> addresses;
        for (size_t i = 0; i < count; ++i) addresses.push_back(rows.view().row(i));
        std::vector<float> scattered(before);
        scattered.push_back(77.0f);
        AddWeightedVectors(weights.data(), query_count, ScatteredRows{addresses, type, dim},
                           scattered.data());
        EXPECT_EQ(scattered, sums);
        for (size_t g = 0; g < query_count; ++g) {
          for (size_t j = 0; j < dim; ++j) {
            double expected = before[g * dim + j];
            for (size_t i = 0; i < count; ++i) {
              expected += static_cast<double>(weights[g * count + i]) * elements[i * dim + j];
            }
            ASSERT_NEAR(sums[g * dim + j], expected, 1e-4) << "dim " << dim << " element " << j;
          }
        }
      }
    }
  });
}

TEST(VectorKernelsTest, WeightedSumsGoWhereThePointersSay) {
  std::mt19937 random(5);
  const TestVectors rows(random, ElementType::kBFloat16, 40, 48);
  const std::vector<float> weights = RandomFloats(random, 3 * 40);
  std::vector<float> together(3 * 48, 1.0f), first(48, 1.0f), second(48, 1.0f), third(48, 1.0f);
  AddWeightedVectors(weights.data(), 3, rows.view(), together.data());
  float* const apart[] = {third.data(), first.data(), second.data()};
  AddWeightedVectors(weights.data(), rows.view(), apart);
  EXPECT_TRUE(std::equal(third.begin(), third.end(), together.begin()));
  EXPECT_TRUE(std::equal(first.begin(), first.end(), together.begin() + 48));
  EXPECT_TRUE(std::equal(second.begin(), second.end(), together.begin() + 96));
}

// NaN in a row of no weight must not reach the sums: such rows are not read.
TEST(VectorKernelsTest, RowsWithoutWeightAreNotRead) {
  for (const size_t dim : {64, 70}) {
    std::vector<float> elements(10 * dim, 1.0f);
    std::fill_n(elements.begin() + 4 * dim, dim, std::nanf(""));
    const TestVectors rows(elements, ElementType::kFloat32, 10, dim);
    std::vector<float> weights(2 * 10, 1.0f);
    weights[4] = weights[14] = 0.0f;
    std::vector<float> sums(2 * dim);
    AddWeightedVectors(weights.data(), 2, rows.view(), sums.data());
    for (const float sum : sums) ASSERT_EQ(sum, 9.0f);
  }
}

TEST(VectorKernelsTest, ExpIsAccurateOverItsWholeRange) {
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::vector<float> x;
    for (float v = -87.3f; v < 80.0f; v += 0.00371f) x.push_back(v + 10.0f);
    std::vector<float> y(x);
    const float sum = ExpInPlace(10.0f, y);
    double expected_sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = std::exp(static_cast<double>(x[i] - 10.0f));
      ASSERT_NEAR(y[i], expected, 1e-6 * expected) << x[i];
      expected_sum += expected;
    }
    EXPECT_NEAR(sum, expected_sum, 1e-5 * expected_sum);
  });
}

TEST(VectorKernelsTest, ExpOfExtremesIsZeroOrOne) {
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    for (size_t filler = 0; filler < 20; ++filler) {  // in whole vectors and in the last part
      std::vector<float> x(filler, -kInfinity);
      for (const float v : {5.0f, -83.0f, -kLargest, -kInfinity, std::nanf("")}) x.push_back(v);
      EXPECT_EQ(ExpInPlace(5.0f, x), 1.0f);
      for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], i == filler ? 1.0f : 0.0f) << i;
    }
    EXPECT_EQ(ExpInPlace(0.0f, {}), 0.0f);
  });
}

TEST(VectorKernelsTest, MaxElementOfAnyLength) {
  ForEachTarget([&] {
    std::mt19937 random(7);
    EXPECT_EQ(MaxElement({}), -kInfinity);
    for (size_t count = 1; count < 70; ++count) {
      std::vector<float> x = RandomFloats(random, count);
      for (float& v : x) v -= 1000.0f;
      ASSERT_EQ(MaxElement(x), *std::max_element(x.begin(), x.end()));
    }
  });
}

TEST(VectorKernelsTest, ScaleLogitsScalesClampsAndFindsTheLargest) {
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::mt19937 random(9);
    EXPECT_EQ(ScaleLogits(2.0f, {}), -kInfinity);
    for (size_t count = 1; count < 70; ++count) {
      std::vector<float> x = RandomFloats(random, count);
      for (float& v : x) v -= 1000.0f;
      std::vector<float> y(x);
      ASSERT_EQ(ScaleLogits(0.5f, y), 0.5f * *std::max_element(x.begin(), x.end()));
      for (size_t i = 0; i < count; ++i) ASSERT_EQ(y[i], 0.5f * x[i]);
      x[count / 2] = std::nanf("");
      EXPECT_LE(ScaleLogits(1.0f, x), count == 1 ? -kLargest : 0.0f);
      EXPECT_EQ(x[count / 2], -kLargest);
      x[count - 1] = kLargest;
      EXPECT_EQ(ScaleLogits(2.0f, x), kLargest);
      x[count - 1] = -kInfinity;
      ScaleLogits(2.0f, x);
      EXPECT_EQ(x[count - 1], -kLargest);
    }
  });
}

TEST(VectorKernelsTest, NamesTheTargetInUse) {
  std::vector<std::string> names;
  ForEachTarget([&] { names.emplace_back(VectorTargetName()); });
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), VectorTargetName());  // the best one is the default
  for (const std::string& name : names) EXPECT_NE(name, "Unknown");
}

}  // namespace
}  // namespace attic
