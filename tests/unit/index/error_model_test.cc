#include "server/index/estimate/error_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace attic {
namespace {

// Samples whose squared error is `weight` times what one level leaves in doubt, on average.
std::vector<ErrorSample> SamplesOf(DoubtLevel level, double weight, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<ErrorSample> samples(count);
  for (ErrorSample& sample : samples) {
    sample.square = 1;
    sample.doubts[level] = 0.01 * std::exp(0.5 * normal(random));
    sample.squared_error = weight * sample.doubts[level] * std::exp(normal(random));
  }
  return samples;
}

TEST(ErrorModelTest, LearnsTheWeightOfEachLevelAndABoundThatHolds) {
  std::printf("seeds 1 to 4\n");
  std::vector<ErrorSample> of_levels = SamplesOf(kSuperClusterDoubt, 40, 200, 1);
  const std::vector<ErrorSample> clusters = SamplesOf(kClusterDoubt, 3, 200, 2);
  const std::vector<ErrorSample> rows = SamplesOf(kRowDoubt, 0.5, 200, 3);
  of_levels.insert(of_levels.end(), clusters.begin(), clusters.end());
  of_levels.insert(of_levels.end(), rows.begin(), rows.end());
  const ErrorModel model = FitErrorModel(of_levels, of_levels, ErrorModel());
  EXPECT_NEAR(model.weight[kSuperClusterDoubt] / 40, 1, 0.3);
  EXPECT_NEAR(model.weight[kClusterDoubt] / 3, 1, 0.3);
  EXPECT_NEAR(model.weight[kRowDoubt] / 0.5, 1, 0.3);
  size_t above = 0;
  const std::vector<ErrorSample> fresh = SamplesOf(kClusterDoubt, 3, 1000, 4);
  for (const ErrorSample& sample : fresh)
    above += sample.squared_error > model.Bound(sample.doubts);
  EXPECT_LE(above, 30u);
  EXPECT_GT(above, 0u);  // and is not just enormous
}

// Below some size errors no longer follow doubts.
TEST(ErrorModelTest, TrialsCorrectBoundsWhereTheyTurnedOutWrong) {
  const std::vector<ErrorSample> of_levels = SamplesOf(kClusterDoubt, 1, 200, 1);
  std::vector<ErrorSample> walks;
  for (const double asked : {0.3, 0.1, 0.03, 0.01}) {
    std::vector<ErrorSample> some = SamplesOf(kClusterDoubt, 1, 64, 7);
    for (ErrorSample& sample : some) {
      const double scale = asked * asked / 0.01;
      sample.doubts[kClusterDoubt] *= scale;
      sample.squared_error = std::max(sample.squared_error * scale, 1e-3);
      sample.asked = asked;
    }
    walks.insert(walks.end(), some.begin(), some.end());
  }
  const ErrorModel model = FitErrorModel(of_levels, walks, ErrorModel());
  ASSERT_EQ(model.trials.size(), 4u);
  size_t above = 0;
  for (const ErrorSample& sample : walks) {
    above += sample.squared_error > model.Bound(sample.doubts);
  }
  EXPECT_LE(above, 12u);
  LevelDoubts doubts = {};
  double before = 0;
  for (double doubt = 1e-6; doubt < 1; doubt *= 1.1) {
    doubts[kClusterDoubt] = doubt;
    EXPECT_GE(model.Bound(doubts), before);
    before = model.Bound(doubts);
  }
}

TEST(ErrorModelTest, FewSamplesLeaveThePrior) {
  const ErrorModel prior;
  const std::vector<ErrorSample> few = SamplesOf(kClusterDoubt, 1000, 5, 1);
  const ErrorModel model = FitErrorModel(few, few, prior);
  EXPECT_EQ(model.weight, prior.weight);
  EXPECT_TRUE(model.trials.empty());
}

TEST(ErrorModelTest, RoundingTeachesNothing) {
  std::vector<ErrorSample> samples = SamplesOf(kRowDoubt, 1, 100, 1);
  for (ErrorSample& sample : samples) {
    sample.doubts[kRowDoubt] = 1e-20;  // all is exact, and yet outputs differ in the last bits
    sample.squared_error = 1e-13;
  }
  const ErrorModel prior;
  EXPECT_EQ(FitErrorModel(samples, samples, prior).weight, prior.weight);
}

}  // namespace
}  // namespace attic
