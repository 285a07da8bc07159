#include "attention/partial_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention/exact_attention.h"
#include "gtest/gtest.h"
#include "tests/unit/attention/test_vectors.h"

namespace attic {
namespace {

struct Partial {
  std::vector<float> output;
  float log_sum_exp = kEmptyLogSumExp;
};

Partial Scan(const std::vector<float>& query, const VectorsView& keys, const VectorsView& values) {
  std::vector<AttentionAccumulator> accumulators(1, AttentionAccumulator(values.dim));
  ScanScratch scratch;
  ScanExact(query.data(), 0.3f, keys, values, accumulators, scratch);
  Partial partial;
  partial.output.resize(values.dim);
  partial.log_sum_exp = accumulators[0].Finish(partial.output);
  return partial;
}

void ExpectSame(const Partial& a, const Partial& b) {
  if (std::isinf(b.log_sum_exp)) {
    EXPECT_EQ(a.log_sum_exp, b.log_sum_exp);
  } else {
    EXPECT_NEAR(a.log_sum_exp, b.log_sum_exp, 1e-5);
  }
  ASSERT_EQ(a.output.size(), b.output.size());
  for (size_t j = 0; j < a.output.size(); ++j) EXPECT_NEAR(a.output[j], b.output[j], 1e-5);
}

// Random contiguous parts, some of them empty, in random order.
std::vector<Partial> RandomParts(std::mt19937& random, const std::vector<float>& query,
                                 const VectorsView& keys, const VectorsView& values) {
  std::vector<size_t> cuts = {0, keys.count};
  const size_t cut_count = random() % 12;
  for (size_t i = 0; i < cut_count; ++i) cuts.push_back(random() % (keys.count + 1));
  std::sort(cuts.begin(), cuts.end());
  std::vector<Partial> parts;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const size_t n = cuts[i + 1] - cuts[i];
    parts.push_back(Scan(query, keys.rows(cuts[i], n), values.rows(cuts[i], n)));
  }
  std::shuffle(parts.begin(), parts.end(), random);
  return parts;
}

TEST(MergePartialAttentionTest, AnySplitInAnyOrderGivesTheWhole) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    const size_t tokens = 1 + random() % 800;
    const TestVectors keys(random, ElementType::kFloat32, tokens, 24);
    const TestVectors values(random, ElementType::kFloat32, tokens, 17);
    const std::vector<float> query = RandomFloats(random, 24, 2.0f);
    const Partial whole = Scan(query, keys.view(), values.view());
    const std::vector<Partial> parts = RandomParts(random, query, keys.view(), values.view());

    Partial merged = {std::vector<float>(17)};
    AttentionAccumulator accumulator(17);
    for (const Partial& part : parts) {
      MergePartialAttention(part.output, part.log_sum_exp, merged.output, merged.log_sum_exp);
      accumulator.Merge(part.output, part.log_sum_exp);
    }
    ExpectSame(merged, whole);
    Partial accumulated = {std::vector<float>(17)};
    accumulated.log_sum_exp = accumulator.Finish(accumulated.output);
    ExpectSame(accumulated, whole);
  }
}

TEST(MergePartialAttentionTest, IsAssociativeAndCommutative) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 8.0f);
  for (int round = 0; round < 500; ++round) {
    Partial parts[3];
    for (Partial& part : parts) part = {RandomFloats(random, 5), normal(random)};
    Partial left = parts[0], right = parts[1], reversed = parts[2];
    MergePartialAttention(parts[1].output, parts[1].log_sum_exp, left.output, left.log_sum_exp);
    MergePartialAttention(parts[2].output, parts[2].log_sum_exp, left.output, left.log_sum_exp);
    MergePartialAttention(parts[2].output, parts[2].log_sum_exp, right.output, right.log_sum_exp);
    MergePartialAttention(parts[0].output, parts[0].log_sum_exp, right.output, right.log_sum_exp);
    MergePartialAttention(parts[1].output, parts[1].log_sum_exp, reversed.output,
                          reversed.log_sum_exp);
    MergePartialAttention(parts[0].output, parts[0].log_sum_exp, reversed.output,
                          reversed.log_sum_exp);
    ExpectSame(left, right);
    ExpectSame(left, reversed);
  }
}

TEST(MergePartialAttentionTest, EmptySidesChangeNothing) {
  const Partial empty = {{0.0f, 0.0f}};
  const Partial some = {{1.0f, -2.0f}, 3.5f};
  Partial left = some, right = empty, both = empty;
  MergePartialAttention(empty.output, empty.log_sum_exp, left.output, left.log_sum_exp);
  MergePartialAttention(some.output, some.log_sum_exp, right.output, right.log_sum_exp);
  MergePartialAttention(empty.output, empty.log_sum_exp, both.output, both.log_sum_exp);
  for (const Partial& merged : {left, right}) {
    EXPECT_EQ(merged.output, some.output);
    EXPECT_EQ(merged.log_sum_exp, some.log_sum_exp);
  }
  EXPECT_EQ(both.log_sum_exp, kEmptyLogSumExp);
  EXPECT_EQ(both.output, empty.output);
}

TEST(MergePartialAttentionTest, FarApartSidesKeepTheLarger) {
  for (const float far : {200.0f, 1e4f, 3e38f}) {
    Partial low = {{5.0f}, -far};
    const Partial high = {{7.0f}, far};
    MergePartialAttention(high.output, high.log_sum_exp, low.output, low.log_sum_exp);
    EXPECT_EQ(low.output[0], 7.0f);
    EXPECT_EQ(low.log_sum_exp, far);
  }
}

TEST(AttentionAccumulatorTest, EmptyFinishesAsEmpty) {
  AttentionAccumulator accumulator(3);
  std::vector<float> output(3, 9.0f);
  EXPECT_EQ(accumulator.Finish(output), kEmptyLogSumExp);
  EXPECT_EQ(output, std::vector<float>(3, 0.0f));
  accumulator.Merge(output, kEmptyLogSumExp);
  EXPECT_EQ(accumulator.Finish(output), kEmptyLogSumExp);
}

TEST(AttentionAccumulatorTest, RaiseMaxRescalesWhatIsHeld) {
  AttentionAccumulator accumulator(1);
  EXPECT_EQ(accumulator.RaiseMax(2.0f), 2.0f);
  accumulator.AddWeight(1.0);
  accumulator.numerator()[0] = 10.0f;
  EXPECT_EQ(accumulator.RaiseMax(1.0f), 2.0f);  // never sinks
  EXPECT_EQ(accumulator.numerator()[0], 10.0f);
  EXPECT_EQ(accumulator.RaiseMax(3.0f), 3.0f);
  EXPECT_NEAR(accumulator.denominator(), std::exp(-1.0), 1e-12);
  EXPECT_NEAR(accumulator.numerator()[0], 10 * std::exp(-1.0), 1e-5);
  std::vector<float> output(1);
  EXPECT_NEAR(accumulator.Finish(output), 2.0f, 1e-6);
  EXPECT_NEAR(output[0], 10.0f, 1e-5);
}

TEST(AttentionAccumulatorTest, ResetForgets) {
  AttentionAccumulator accumulator(2);
  accumulator.Merge(std::vector<float>{1.0f, 2.0f}, 5.0f);
  accumulator.Reset(4);
  EXPECT_EQ(accumulator.max_logit(), kEmptyLogSumExp);
  std::vector<float> output(4, 1.0f);
  EXPECT_EQ(accumulator.Finish(output), kEmptyLogSumExp);
  EXPECT_EQ(output, std::vector<float>(4, 0.0f));
}

}  // namespace
}  // namespace attic
