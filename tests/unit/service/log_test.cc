#include "server/service/log.h"

#include <gtest/gtest.h>

namespace attic {
namespace {

TEST(LogTest, PlainValuesStandAsTheyAre) {
  EXPECT_EQ(FormatLogLine(LogLevel::kInfo, "ready", {{"address", "127.0.0.1:1"}, {"n", "3"}}),
            "level=info event=ready address=127.0.0.1:1 n=3");
}

TEST(LogTest, OtherValuesAreQuotedSoThatALineStaysALine) {
  EXPECT_EQ(FormatLogLine(LogLevel::kError, "e", {{"m", "a \"b\"\nlevel=info"}, {"empty", ""}}),
            "level=error event=e m=\"a \\\"b\\\"\\nlevel=info\" empty=\"\"");
}

}  // namespace
}  // namespace attic
