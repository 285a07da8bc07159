#include "api/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  SelectionGoal goal;
  double amount;
};

TEST(SelectionTest, AcceptsWhatSuitsTheGoal) {
  const Case cases[] = {
      {SelectionGoal::kDefault, 0},
      {SelectionGoal::kDefault, kNan},
      {SelectionGoal::kTopK, 1},
      {SelectionGoal::kTopK, 1 << 20},
      {SelectionGoal::kTokenBudget, 1},
      {SelectionGoal::kTokenBudget, 1e12},
      {SelectionGoal::kCoverage, 1e-9},
      {SelectionGoal::kCoverage, 1},
      {SelectionGoal::kMaxError, 0.05},
      {SelectionGoal::kMaxError, 1},
      {SelectionGoal::kInnerProductRange, 0},
      {SelectionGoal::kInnerProductRange, 1e30},
  };
  for (const auto& [goal, amount] : cases) {
    const absl::Status status = ValidateSelection({goal, amount}, Limits());
    EXPECT_TRUE(status.ok()) << status << " for " << amount;
  }
}

TEST(SelectionTest, RefusalsNameTheField) {
  const Case cases[] = {
      {SelectionGoal::kTopK, 0},
      {SelectionGoal::kTopK, -1},
      {SelectionGoal::kTopK, 2.5},
      {SelectionGoal::kTopK, kNan},
      {SelectionGoal::kTopK, kInfinity},
      {SelectionGoal::kTokenBudget, 0},
      {SelectionGoal::kTokenBudget, 0.5},
      {SelectionGoal::kTokenBudget, kNan},
      {SelectionGoal::kTokenBudget, kInfinity},
      {SelectionGoal::kCoverage, 0},
      {SelectionGoal::kCoverage, -0.5},
      {SelectionGoal::kCoverage, std::nextafter(1.0, 2.0)},
      {SelectionGoal::kCoverage, kNan},
      {SelectionGoal::kMaxError, 0},
      {SelectionGoal::kMaxError, 1.5},
      {SelectionGoal::kMaxError, kNan},
      {SelectionGoal::kInnerProductRange, -1e-9},
      {SelectionGoal::kInnerProductRange, 1e300},
      {SelectionGoal::kInnerProductRange, kInfinity},
      {SelectionGoal::kInnerProductRange, kNan},
      {static_cast<SelectionGoal>(9), 1},
  };
  for (const auto& [goal, amount] : cases) {
    const absl::Status status = ValidateSelection({goal, amount}, Limits());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << amount;
    const bool known = static_cast<int>(goal) <= 5;
    const std::string field = known ? SelectionGoalName(goal) : "goal";
    EXPECT_THAT(std::string(status.message()), HasSubstr("selection." + field)) << amount;
  }
}

TEST(SelectionTest, TopKHasALimit) {
  const absl::Status status =
      ValidateSelection({SelectionGoal::kTopK, 11}, {.selection_top_k_max = 10});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("selection.top_k"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("selection_top_k_max"));
}

TEST(SelectionTest, GoalsHaveTheNamesOfTheWire) {
  EXPECT_STREQ(SelectionGoalName(SelectionGoal::kDefault), "default");
  EXPECT_STREQ(SelectionGoalName(SelectionGoal::kInnerProductRange), "inner_product_range");
  EXPECT_STREQ(SelectionGoalName(static_cast<SelectionGoal>(9)), "unknown");
}

}  // namespace
}  // namespace attic
