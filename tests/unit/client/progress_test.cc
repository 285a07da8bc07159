#include "client/cli/progress.h"

#include <gtest/gtest.h>

namespace attic::cli {
namespace {

TEST(ProgressBarTest, ShowsShareCountAndTimeLeft) {
  const ProgressBar bar("read", 1000, "tokens", /*enabled=*/false);
  EXPECT_EQ(bar.Line(500, 10),
            "read       [###############...............] 50%  500/1,000 tokens  10 s left");
  EXPECT_EQ(bar.Line(0, 1), "read       [..............................] 0%  0/1,000 tokens");
  EXPECT_EQ(bar.Line(2000, 1),
            "read       [##############################] 100%  1,000/1,000 tokens");
}

TEST(ProgressBarTest, WithoutTotalOnlyTheCountIsShown) {
  const ProgressBar bar("read", 0, "tokens", /*enabled=*/false);
  EXPECT_EQ(bar.Line(1234, 5), "read       1,234 tokens");
}

}  // namespace
}  // namespace attic::cli
