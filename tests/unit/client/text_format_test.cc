#include "client/cli/text_format.h"

#include <gtest/gtest.h>

namespace attic::cli {
namespace {

TEST(TextFormatTest, Counts) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1048576), "1,048,576");
  EXPECT_EQ(FormatCount(-123456), "-123,456");
}

TEST(TextFormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.0 KB");
  EXPECT_EQ(FormatBytes(123456), "123 KB");
  EXPECT_EQ(FormatBytes(999999), "1.0 MB");
  EXPECT_EQ(FormatBytes(12.34e9), "12.3 GB");
}

TEST(TextFormatTest, Seconds) {
  EXPECT_EQ(FormatSeconds(0.42), "0.4 s");
  EXPECT_EQ(FormatSeconds(59.4), "59 s");
  EXPECT_EQ(FormatSeconds(59.6), "1 min 00 s");
  EXPECT_EQ(FormatSeconds(185), "3 min 05 s");
  EXPECT_EQ(FormatSeconds(7800), "2 h 10 min");
}

TEST(TextFormatTest, TextThatIsNotPrintableIsEscaped) {
  EXPECT_EQ(EscapeText("a b~"), "a b~");
  EXPECT_EQ(EscapeText(std::string("\n\0\xff", 3)), "\\x0a\\x00\\xff");
}

TEST(TextFormatTest, PercentilesAreNearestRank) {
  EXPECT_EQ(Percentile({}, 0.5), 0);
  EXPECT_EQ(Percentile({5}, 0.0), 5);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0.5), 2);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 0.75), 3);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 1.0), 4);
  EXPECT_EQ(Median({3, 1, 2}), 2);
}

}  // namespace
}  // namespace attic::cli
