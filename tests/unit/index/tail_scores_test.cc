#include "server/index/search/tail_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "attention/exact_attention.h"

namespace attic {
namespace {

constexpr size_t kDim = 24;
constexpr size_t kValueDim = 16;
constexpr size_t kTokens = 1000;
constexpr size_t kGroup = 3;

VectorsView Rows(const std::vector<float>& rows, size_t begin, size_t end, size_t dim) {
  return {reinterpret_cast<const std::byte*>(rows.data() + begin * dim), ElementType::kFloat32,
          end - begin, dim};
}

class TailScoresTest : public ::testing::TestWithParam<float> {
 protected:
  TailScoresTest()
      : keys_(Normal(kTokens * kDim)),
        values_(Normal(kTokens * kValueDim)),
        tail_({ElementType::kFloat32, kDim, kValueDim, 128}, 500) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
    AppendToTail(Rows(keys_, 0, kTokens, kDim), Rows(values_, 0, kTokens, kValueDim), tail_);
    queries_ = Normal(kGroup * kDim);
    for (float& x : queries_) x *= GetParam();
    for (size_t g = 0; g < kGroup; ++g) accumulators_.emplace_back(kValueDim);
  }

  std::vector<float> Normal(size_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> x(count);
    for (float& value : x) value = normal(random_);
    return x;
  }

  // Over the tail's rows from `begin` to `end`.
  double Reference(size_t g, size_t begin, size_t end, std::vector<double>& output) const {
    output.resize(kValueDim);
    return ReferenceAttention(std::span(queries_).subspan(g * kDim, kDim), 1.0,
                              Rows(keys_, begin, end, kDim), Rows(values_, begin, end, kValueDim),
                              output);
  }

  static constexpr uint64_t kSeed = 11;
  std::mt19937_64 random_{kSeed};
  std::vector<float> keys_, values_, queries_;
  Tail tail_;
  std::vector<AttentionAccumulator> accumulators_;
  ReadStatistics read_;
};

TEST_P(TailScoresTest, AddsWhatAnExactScanWould) {
  TailScores scores;
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 5000}, {613, 1322}}) {
    for (AttentionAccumulator& a : accumulators_) a.Reset(kValueDim);
    scores.Score(tail_.View(), {begin, end}, queries_, kGroup, read_);
    const auto first = static_cast<size_t>(std::max<int64_t>(0, begin - 500));
    const auto last = static_cast<size_t>(std::min<int64_t>(kTokens, end - 500));
    std::vector<std::vector<double>> expected(kGroup);
    for (size_t g = 0; g < kGroup; ++g) {
      EXPECT_NEAR(scores.log_mass(g), Reference(g, first, last, expected[g]), 1e-3);
    }
    scores.Add(accumulators_, read_);
    for (size_t g = 0; g < kGroup; ++g) {
      std::vector<float> output(kValueDim);
      const double log_mass = Reference(g, first, last, expected[g]);
      EXPECT_NEAR(accumulators_[g].Finish(output), log_mass, 1e-3);
      for (size_t i = 0; i < kValueDim; ++i) EXPECT_NEAR(output[i], expected[g][i], 1e-4);
    }
  }
}

TEST_P(TailScoresTest, ValuesThatCannotBeSeenAreNotRead) {
  TailScores scores;
  scores.Score(tail_.View(), {0, 5000}, queries_, kGroup, read_);
  EXPECT_EQ(read_.exact_tokens, kTokens);
  EXPECT_EQ(read_.bytes_read, kTokens * kDim * sizeof(float));
  const std::vector<float> one(kValueDim, 1.0f);
  for (size_t g = 0; g < kGroup; ++g) accumulators_[g].Merge(one, scores.log_mass(g) + 40);
  scores.Add(accumulators_, read_);
  EXPECT_EQ(read_.bytes_read, kTokens * kDim * sizeof(float));
  for (size_t g = 0; g < kGroup; ++g) {
    std::vector<float> output(kValueDim);
    accumulators_[g].Finish(output);
    for (const float x : output) EXPECT_NEAR(x, 1.0f, 1e-6);
  }
}

TEST_P(TailScoresTest, AnEmptyRangeAddsNothing) {
  TailScores scores;
  scores.Score(tail_.View(), {0, 500}, queries_, kGroup, read_);
  scores.Add(accumulators_, read_);
  for (size_t g = 0; g < kGroup; ++g) {
    EXPECT_EQ(scores.log_mass(g), kEmptyLogSumExp);
    EXPECT_EQ(accumulators_[g].denominator(), 0);
  }
  EXPECT_EQ(read_.bytes_read, 0u);
}

// Diffuse and sharp queries.
INSTANTIATE_TEST_SUITE_P(Scales, TailScoresTest, ::testing::Values(0.1f, 1.0f, 10.0f));

}  // namespace
}  // namespace attic
