#include "client/cli/selection_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attic::cli {
namespace {

using ::testing::HasSubstr;

// The policy, or the parser's error.
absl::StatusOr<SelectionPolicy> Parse(std::vector<std::string> arguments) {
  CLI::App app("test");
  SelectionPolicy selection;
  AddSelectionOptions(app, selection);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return selection;
}

void ExpectRefused(const std::vector<std::string>& arguments, const std::string& part) {
  const absl::StatusOr<SelectionPolicy> parsed = Parse(arguments);
  EXPECT_FALSE(parsed.ok());
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(part));
}

TEST(SelectionOptionsTest, EveryGoalHasOne) {
  EXPECT_EQ(*Parse({}), SelectionPolicy());
  EXPECT_EQ(*Parse({"--top-k", "7"}), (SelectionPolicy{SelectionGoal::kTopK, 7}));
  EXPECT_EQ(*Parse({"--token-budget", "1000000"}),
            (SelectionPolicy{SelectionGoal::kTokenBudget, 1e6}));
  EXPECT_EQ(*Parse({"--coverage", "0.95"}), (SelectionPolicy{SelectionGoal::kCoverage, 0.95}));
  EXPECT_EQ(*Parse({"--max-error=0.01"}), (SelectionPolicy{SelectionGoal::kMaxError, 0.01}));
  EXPECT_EQ(*Parse({"--inner-product-range", "0"}),
            (SelectionPolicy{SelectionGoal::kInnerProductRange, 0}));
}

TEST(SelectionOptionsTest, OnlyOneAtATime) {
  ExpectRefused({"--top-k", "7", "--coverage", "0.5"}, "--top-k");
  ExpectRefused({"--max-error", "0.1", "--inner-product-range", "5"}, "--max-error");
}

TEST(SelectionOptionsTest, AmountsSuitTheGoal) {
  ExpectRefused({"--top-k", "0"}, "--top-k");
  ExpectRefused({"--top-k", "2.5"}, "--top-k");
  ExpectRefused({"--top-k", "1048577"}, "selection_top_k_max");
  ExpectRefused({"--token-budget", "-1"}, "--token-budget");
  ExpectRefused({"--coverage", "0"}, "--coverage");
  ExpectRefused({"--coverage", "nan"}, "--coverage");
  ExpectRefused({"--max-error", "2"}, "--max-error");
  ExpectRefused({"--max-error", "little"}, "--max-error");
  ExpectRefused({"--inner-product-range", "inf"}, "--inner-product-range");
}

}  // namespace
}  // namespace attic::cli
