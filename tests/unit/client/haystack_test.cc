#include "client/cli/demo/haystack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temporary_folder.h"

namespace attic::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class HaystackTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return (folder_ / name).string();
  }

  const TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

TEST_F(HaystackTest, GivenFilesAreJoinedAndCutToSize) {
  const std::string a = Write("a", "one\ntwo\r\n"), b = Write("b", "caf\xc3\xa9 \x01three");
  const auto haystack = ReadHaystack({a, b}, 15);
  ASSERT_TRUE(haystack.ok()) << haystack.status();
  EXPECT_EQ(haystack->text, "one\ntwo\ncaf thr");
  EXPECT_EQ(haystack->files, 2u);
}

TEST_F(HaystackTest, AMissingFileIsNamedEvenWhenNotNeeded) {
  const std::string a = Write("a", "enough text");
  const std::string missing = (folder_ / "missing").string();
  const auto haystack = ReadHaystack({a, missing}, 5);
  EXPECT_EQ(haystack.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(haystack.status().message()), HasSubstr(missing));
}

TEST_F(HaystackTest, AFolderIsNoTextFile) {
  EXPECT_EQ(ReadHaystack({folder_.string()}, 5).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(HaystackTest, TooLittleTextIsAnErrorWithBothNumbers) {
  const std::string a = Write("a", "short");
  const auto haystack = ReadHaystack({a}, 5000);
  EXPECT_EQ(haystack.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(haystack.status().message()), HasSubstr("5,000"));
  EXPECT_THAT(std::string(haystack.status().message()), HasSubstr("5 found"));
  EXPECT_FALSE(FindHaystack({folder_ / "none"}, 10).ok());
}

TEST_F(HaystackTest, FoundTextLeavesOutBinariesOtherSuffixesAndLinks) {
  Write("a.txt", "first ");
  Write("b.txt", std::string(100, '\xff') + "foreign");
  Write("c.so", "suffix");
  fs::create_symlink(folder_ / "a.txt", folder_ / "d.txt");
  Write("e.py", "second");
  const auto haystack = FindHaystack({folder_}, 12);
  ASSERT_TRUE(haystack.ok()) << haystack.status();
  EXPECT_EQ(haystack->text, "first second");
  EXPECT_EQ(haystack->files, 2u);
}

TEST_F(HaystackTest, NoFoundFileDominates) {
  Write("a.txt", std::string(2 * kFoundFileBytesMax, 'a'));
  Write("b.txt", "b");
  const auto haystack = FindHaystack({folder_}, kFoundFileBytesMax + 1);
  ASSERT_TRUE(haystack.ok()) << haystack.status();
  EXPECT_EQ(haystack->text.back(), 'b');
}

}  // namespace
}  // namespace attic::cli
