#include "base/check.h"

#include <memory>

#include "base/status_macros.h"
#include "gtest/gtest.h"

namespace attic {
namespace {

TEST(CheckTest, PassesSilently) {
  int evaluations = 0;
  ATTIC_CHECK(++evaluations == 1);
  EXPECT_EQ(evaluations, 1);
}

TEST(CheckDeathTest, AbortsNamingTheCondition) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(ATTIC_CHECK(1 + 1 == 3), "check_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3");
}

absl::StatusOr<std::unique_ptr<int>> Parse(int n) {
  if (n < 0) return absl::InvalidArgumentError("n is negative");
  return std::make_unique<int>(n);
}

absl::Status Store(int n, int& out) {
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<int> value, Parse(n));
  ATTIC_ASSIGN_OR_RETURN(const std::unique_ptr<int> next, Parse(n + 1));
  out = *value + *next;
  return absl::OkStatus();
}

absl::Status StoreTwice(int n, int& out) {
  ATTIC_RETURN_IF_ERROR(Store(n, out));
  return Store(n + 10, out);
}

TEST(StatusMacrosTest, ErrorsReturnEarlyAndValuesMove) {
  int out = 0;
  EXPECT_EQ(StoreTwice(1, out), absl::OkStatus());
  EXPECT_EQ(out, 23);
  EXPECT_EQ(StoreTwice(-1, out), absl::InvalidArgumentError("n is negative"));
  EXPECT_EQ(out, 23);
}

}  // namespace
}  // namespace attic
