#include "server/index/indexed_part.h"

#include <gtest/gtest.h>

namespace attic {
namespace {

bool Scans(const IndexedPart& part, SelectionGoal goal, double amount) {
  return part.ScanIsBetter({goal, amount});
}

TEST(IndexedPartTest, ErrorsTheIndexDoesNotKeepOrReachFasterAreScanned) {
  IndexedPart part;
  part.options.max_error = 0.05;
  part.calibration.scan_faster_below = 0.02f;
  EXPECT_FALSE(Scans(part, SelectionGoal::kDefault, 0));
  EXPECT_FALSE(Scans(part, SelectionGoal::kMaxError, 0.021));
  EXPECT_TRUE(Scans(part, SelectionGoal::kMaxError, 0.02 - 1e-6));
  part.calibration.least_error = 0.06f;
  EXPECT_TRUE(Scans(part, SelectionGoal::kDefault, 0));
  EXPECT_TRUE(Scans(part, SelectionGoal::kMaxError, 0.05));
  EXPECT_FALSE(Scans(part, SelectionGoal::kMaxError, 0.07));
  part.options.max_error = 0.1;
  EXPECT_FALSE(Scans(part, SelectionGoal::kDefault, 0));
}

TEST(IndexedPartTest, CoverageBeyondWhatTheIndexKeepsIsScanned) {
  IndexedPart part;
  EXPECT_FALSE(Scans(part, SelectionGoal::kCoverage, 1.0));
  part.calibration.coverage_max = 0.5f;
  EXPECT_FALSE(Scans(part, SelectionGoal::kCoverage, 0.5));
  EXPECT_TRUE(Scans(part, SelectionGoal::kCoverage, 0.6));
}

TEST(IndexedPartTest, OtherPoliciesAndThoseWhoForbidItAreNotScanned) {
  IndexedPart part;
  part.calibration.coverage_max = 0;
  part.calibration.least_error = 1;
  EXPECT_FALSE(Scans(part, SelectionGoal::kTokenBudget, 100));
  EXPECT_FALSE(Scans(part, SelectionGoal::kTopK, 100));
  part.options.exact_when_better = false;
  EXPECT_FALSE(Scans(part, SelectionGoal::kCoverage, 0.9));
  EXPECT_FALSE(Scans(part, SelectionGoal::kMaxError, 0.01));
}

}  // namespace
}  // namespace attic
