#include "client/cli/demo/needles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace attic::cli {
namespace {

size_t LettersThatDiffer(const std::string& a, const std::string& b) {
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}

TEST(NeedlesTest, NamesAreDistinctAndSomeAreNear) {
  const std::vector<Needle> needles = MakeNeedles(40, 7);
  ASSERT_EQ(needles.size(), 40u);
  std::set<std::string> names;
  size_t near = 0;
  for (const Needle& needle : needles) {
    EXPECT_EQ(needle.name.size(), 6u);
    EXPECT_EQ(needle.digits.size(), 4u);
    EXPECT_EQ(needle.digits.find_first_not_of("0123456789"), std::string::npos);
    names.insert(needle.name);
    for (const Needle& other : needles) near += LettersThatDiffer(needle.name, other.name) == 1;
  }
  EXPECT_EQ(names.size(), 40u);
  EXPECT_GE(near, 4u);
}

TEST(NeedlesTest, TheSeedDecides) {
  EXPECT_EQ(MakeNeedles(5, 1)[3].name, MakeNeedles(5, 1)[3].name);
  EXPECT_NE(MakeNeedles(5, 1)[3].name, MakeNeedles(5, 2)[3].name);
}

TEST(NeedlesTest, StatementsLieAtEvenDepthsOnWordBoundaries) {
  std::string text;
  while (text.size() < 20'000) text += "some words and\nlines ";
  std::vector<Needle> needles = MakeNeedles(20, 1);
  const std::string hidden = HideNeedles(text, needles);
  EXPECT_EQ(hidden.size(), text.size() + StatementBytes(needles));
  std::string without = hidden;
  for (size_t i = 0; i < needles.size(); ++i) {
    const Needle& needle = needles[i];
    const size_t at = hidden.find(needle.Statement());
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(hidden.find(needle.Statement(), at + 1), std::string::npos);
    EXPECT_DOUBLE_EQ(needle.depth, static_cast<double>(at) / hidden.size());
    EXPECT_NEAR(needle.depth, (i + 0.5) / needles.size(), 0.01);
    const char after = hidden[at + needle.Statement().size()];
    EXPECT_TRUE(after == ' ' || after == '\n') << after;
    without.erase(without.find(needle.Statement()), needle.Statement().size());
  }
  EXPECT_EQ(without, text);
}

TEST(NeedlesTest, TextWithoutWordsStillHoldsEveryNeedle) {
  std::vector<Needle> needles = MakeNeedles(10, 1);
  const std::string hidden = HideNeedles(std::string(100, 'x'), needles);
  for (const Needle& needle : needles) {
    EXPECT_NE(hidden.find(needle.Statement()), std::string::npos);
  }
}

}  // namespace
}  // namespace attic::cli
