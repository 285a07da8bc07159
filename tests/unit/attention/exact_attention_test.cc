#include "attention/exact_attention.h"

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "attention/vector_kernels.h"
#include "gtest/gtest.h"
#include "tests/unit/attention/test_vectors.h"

namespace attic {
namespace {

struct Shape {
  size_t tokens;
  size_t head_dim;
  size_t value_dim;
  size_t group;
};

// Scans (keys, values) for every query and compares with the reference. `slack` multiplies the
// tolerance.
void ExpectMatchesReference(const std::vector<float>& queries, size_t group, float logit_scale,
                            const VectorsView& keys, const VectorsView& values, double slack) {
  std::vector<AttentionAccumulator> accumulators(group, AttentionAccumulator(values.dim));
  ScanScratch scratch;
  ScanExact(queries.data(), logit_scale, keys, values, accumulators, scratch);
  std::vector<float> output(values.dim);
  std::vector<double> expected(values.dim);
  for (size_t g = 0; g < group; ++g) {
    const float log_sum_exp = accumulators[g].Finish(output);
    const double expected_log_sum_exp = ReferenceAttention(
        std::span(queries).subspan(g * keys.dim, keys.dim), logit_scale, keys, values, expected);
    if (keys.count == 0) {
      EXPECT_EQ(log_sum_exp, kEmptyLogSumExp);
      EXPECT_EQ(expected_log_sum_exp, kEmptyLogSumExp);
    } else {
      EXPECT_NEAR(log_sum_exp, expected_log_sum_exp,
                  1e-5 * slack * (1 + std::abs(expected_log_sum_exp)));
    }
    for (size_t j = 0; j < values.dim; ++j) {
      ASSERT_NEAR(output[j], expected[j], 1e-5 * slack) << "head " << g << " element " << j;
    }
  }
}

TEST(ScanExactTest, MatchesReferenceForManyShapes) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Shape shapes[] = {{1, 1, 1, 1},     {3, 7, 5, 2},       {4, 33, 64, 3},   {5, 64, 33, 4},
                          {255, 64, 64, 2}, {256, 128, 128, 4}, {257, 80, 96, 5}, {700, 64, 7, 8},
                          {900, 1, 128, 6}, {130, 1100, 20, 7}, {40, 64, 64, 19}, {0, 64, 64, 2}};
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::mt19937 random(seed);
    for (const ElementType type : kElementTypes) {
      for (const Shape& shape : shapes) {
        SCOPED_TRACE(std::string(ElementTypeName(type)) + " tokens " +
                     std::to_string(shape.tokens) + " dim " + std::to_string(shape.head_dim));
        const TestVectors keys(random, type, shape.tokens, shape.head_dim);
        const TestVectors values(random, type, shape.tokens, shape.value_dim);
        const std::vector<float> queries = RandomFloats(random, shape.group * shape.head_dim);
        const float logit_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
        ExpectMatchesReference(queries, shape.group, logit_scale, keys.view(), values.view(), 1);
      }
    }
  });
}

TEST(ScanExactTest, KeysAndValuesMayDifferInType) {
  std::mt19937 random(1);
  const TestVectors keys(random, ElementType::kBFloat16, 300, 64);
  const TestVectors values(random, ElementType::kFloat32, 300, 48);
  ExpectMatchesReference(RandomFloats(random, 2 * 64), 2, 0.125f, keys.view(), values.view(), 1);
}

// Logits of thousands: the running maximum keeps exponentials in range, and later blocks that raise
// it make earlier ones vanish.
TEST(ScanExactTest, HugeLogitsDoNotOverflow) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const TestVectors keys(random, ElementType::kFloat32, 600, 64, 30.0f);
  const TestVectors values(random, ElementType::kFloat32, 600, 64);
  const std::vector<float> queries = RandomFloats(random, 4 * 64, 30.0f);
  // float32 rounds such logits to about 1e-3, which is what the outputs can differ by.
  ExpectMatchesReference(queries, 4, 1.0f, keys.view(), values.view(), 500);
  ExpectMatchesReference(queries, 4, 1e-7f, keys.view(), values.view(), 1);
}

TEST(ScanExactTest, ScoresBeyondFloatStayFinite) {
  std::vector<float> elements(300 * 8, 3e38f);
  for (size_t i = 0; i < elements.size(); i += 3) elements[i] = -3e38f;
  const TestVectors keys(elements, ElementType::kFloat32, 300, 8);
  const TestVectors values(std::vector<float>(300 * 8, 1.0f), ElementType::kFloat32, 300, 8);
  const std::vector<float> queries(2 * 8, 3e38f);
  std::vector<AttentionAccumulator> accumulators(2, AttentionAccumulator(8));
  ScanScratch scratch;
  ScanExact(queries.data(), 1.0f, keys.view(), values.view(), accumulators, scratch);
  std::vector<float> output(8);
  EXPECT_TRUE(std::isfinite(accumulators[0].Finish(output)));
  for (const float x : output) EXPECT_NEAR(x, 1.0f, 1e-5);
}

// One token far above the others takes all the weight, wherever it is.
TEST(ScanExactTest, FindsOneKeyAmongMany) {
  for (const size_t needle : {0, 255, 256, 999}) {
    std::mt19937 random(needle);
    std::vector<float> elements = RandomFloats(random, 1000 * 16, 0.1f);
    std::vector<float> query(16, 1.0f);
    for (size_t j = 0; j < 16; ++j) elements[needle * 16 + j] = 100.0f;
    const TestVectors keys(elements, ElementType::kBFloat16, 1000, 16);
    const TestVectors values(random, ElementType::kBFloat16, 1000, 24);
    std::vector<AttentionAccumulator> accumulators(1, AttentionAccumulator(24));
    ScanScratch scratch;
    ScanExact(query.data(), 1.0f, keys.view(), values.view(), accumulators, scratch);
    std::vector<float> output(24);
    EXPECT_NEAR(accumulators[0].Finish(output), 1600.0f, 1e-3);
    const std::vector<float> expected = values.floats();
    for (size_t j = 0; j < 24; ++j) EXPECT_EQ(output[j], expected[needle * 24 + j]);
  }
}

TEST(ReferenceAttentionTest, TwoTokensByHand) {
  // Logits 0 and log 3: weights 1/4 and 3/4, log-sum-exp log 4.
  const TestVectors keys({0.0f, std::log(3.0f)}, ElementType::kFloat32, 2, 1);
  const TestVectors values({8.0f, 0.0f, 0.0f, 4.0f}, ElementType::kFloat32, 2, 2);
  const float query = 2.0f;
  std::vector<double> output(2);
  const double log_sum_exp =
      ReferenceAttention(std::span(&query, 1), 0.5, keys.view(), values.view(), output);
  EXPECT_NEAR(log_sum_exp, std::log(4.0), 1e-6);
  EXPECT_NEAR(output[0], 2.0, 1e-6);
  EXPECT_NEAR(output[1], 3.0, 1e-6);
}

}  // namespace
}  // namespace attic
