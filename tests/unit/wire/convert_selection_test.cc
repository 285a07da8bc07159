#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "api/limits.h"
#include "wire/convert.h"

namespace attic::wire {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<SelectionPolicy> OverTheWire(const SelectionPolicy& selection) {
  v1::SelectionPolicy read;
  EXPECT_TRUE(read.ParseFromString(ToWire(selection).SerializeAsString()));
  return FromWire(read);
}

TEST(ConvertSelectionTest, EveryGoalSurvives) {
  const std::vector<SelectionPolicy> policies = {{},
                                                 {SelectionGoal::kTopK, 100},
                                                 {SelectionGoal::kTokenBudget, 4294967295.0},
                                                 {SelectionGoal::kCoverage, 0.75},
                                                 {SelectionGoal::kMaxError, 0.0625},
                                                 {SelectionGoal::kInnerProductRange, 0},
                                                 {SelectionGoal::kInnerProductRange, 12.5}};
  for (const SelectionPolicy& policy : policies) {
    const auto read = OverTheWire(policy);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, policy) << SelectionGoalName(policy.goal);

    const AttendItem item{.selection = policy};
    std::vector<float> queries;
    const auto item_read = FromWire(ToWire(item), 0, queries);
    ASSERT_TRUE(item_read.ok()) << item_read.status();
    EXPECT_EQ(item_read->selection, policy);

    const SearchRequest search{.selection = policy};
    const auto search_read = FromWire(ToWire(search), queries);
    ASSERT_TRUE(search_read.ok()) << search_read.status();
    EXPECT_EQ(search_read->selection, policy);
  }
}

TEST(ConvertSelectionTest, NoGoalIsTheDefault) {
  std::vector<float> queries;
  EXPECT_EQ(FromWire(v1::AttendItem(), 0, queries)->selection, SelectionPolicy());
  EXPECT_EQ(*FromWire(v1::SelectionPolicy()), SelectionPolicy());
}

// What is refused before the wire is refused after it, with the same code and field.
TEST(ConvertSelectionTest, BadAmountsStayBad) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const std::vector<SelectionPolicy> policies = {{SelectionGoal::kTopK, 0},
                                                 {SelectionGoal::kTopK, -3},
                                                 {SelectionGoal::kTopK, 2.5},
                                                 {SelectionGoal::kTopK, 1e18},
                                                 {SelectionGoal::kTopK, nan},
                                                 {SelectionGoal::kTokenBudget, 0},
                                                 {SelectionGoal::kTokenBudget, infinity},
                                                 {SelectionGoal::kTokenBudget, nan},
                                                 {SelectionGoal::kCoverage, 0},
                                                 {SelectionGoal::kCoverage, 1.5},
                                                 {SelectionGoal::kCoverage, nan},
                                                 {SelectionGoal::kMaxError, -1},
                                                 {SelectionGoal::kMaxError, nan},
                                                 {SelectionGoal::kInnerProductRange, -1},
                                                 {SelectionGoal::kInnerProductRange, infinity},
                                                 {SelectionGoal::kInnerProductRange, nan}};
  for (const SelectionPolicy& policy : policies) {
    const absl::Status before = ValidateSelection(policy, Limits());
    const auto read = OverTheWire(policy);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_FALSE(before.ok());
    EXPECT_EQ(ValidateSelection(*read, Limits()), before) << policy.amount;
  }
  // More tokens than there can be are as good as the most the wire can say.
  EXPECT_EQ(OverTheWire({SelectionGoal::kTokenBudget, 1e12})->amount, 4294967295.0);
}

TEST(ConvertSelectionTest, GoalsOfLaterVersionsAreRefused) {
  const std::string field_90("\xd0\x05\x01", 3);
  v1::SelectionPolicy unknown;
  ASSERT_TRUE(unknown.ParseFromString(field_90));
  const absl::Status status = FromWire(unknown).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("selection"));
  v1::SearchRequest search;
  *search.mutable_selection() = unknown;
  std::vector<float> queries;
  EXPECT_EQ(FromWire(search, queries).status(), status);
}

}  // namespace
}  // namespace attic::wire
