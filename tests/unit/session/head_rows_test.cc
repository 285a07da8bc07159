#include "server/session/head_rows.h"

#include <gtest/gtest.h>

#include <vector>

namespace attic {
namespace {

TEST(HeadRowsTest, TakesEveryTokenOfOneHead) {
  constexpr size_t kTokens = 5, kHeads = 3, kRowBytes = 4;
  std::vector<std::byte> interleaved;
  for (size_t i = 0; i < kTokens * kHeads * kRowBytes; ++i) interleaved.push_back(std::byte(i));
  std::vector<std::byte> buffer;
  for (size_t head = 0; head < kHeads; ++head) {
    const auto rows = HeadRows(interleaved, kHeads, head, kRowBytes, buffer);
    ASSERT_EQ(rows.size(), kTokens * kRowBytes);
    for (size_t i = 0; i < kTokens; ++i) {
      for (size_t b = 0; b < kRowBytes; ++b) {
        EXPECT_EQ(rows[i * kRowBytes + b], interleaved[(i * kHeads + head) * kRowBytes + b]);
      }
    }
  }
}

TEST(HeadRowsTest, OneHeadIsNotCopied) {
  const std::vector<std::byte> interleaved(12);
  std::vector<std::byte> buffer;
  EXPECT_EQ(HeadRows(interleaved, 1, 0, 4, buffer).data(), interleaved.data());
}

TEST(GroupQueriesTest, TakesTheGroupOfTheHead) {
  constexpr size_t kCount = 3, kHeads = 2, kGroup = 4, kDim = 5;
  std::vector<float> sample;
  for (size_t i = 0; i < kCount * kHeads * kGroup * kDim; ++i) sample.push_back(float(i));
  std::vector<float> buffer;
  for (size_t head = 0; head < kHeads; ++head) {
    const auto queries = GroupQueries(sample, kHeads, head, kGroup, kDim, buffer);
    ASSERT_EQ(queries.size(), kCount * kGroup * kDim);
    for (size_t n = 0; n < kCount; ++n) {
      for (size_t i = 0; i < kGroup * kDim; ++i) {
        EXPECT_EQ(queries[n * kGroup * kDim + i], sample[(n * kHeads + head) * kGroup * kDim + i]);
      }
    }
  }
}

}  // namespace
}  // namespace attic
