#include "api/prefix_hashes.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace attic {
namespace {

std::string Hex(const PrefixHash& hash) {
  std::string text;
  for (const uint8_t byte : hash) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

// Computed with Python's hashlib: whoever computes the chain elsewhere gets the same.
TEST(PrefixHashesTest, AreThoseOfOtherPrograms) {
  std::vector<uint32_t> tokens(600);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(i * 65537);
  const std::vector<PrefixHash> hashes = PrefixHashes(tokens);
  ASSERT_EQ(hashes.size(), 2u);
  EXPECT_EQ(Hex(hashes[0]), "04ba16cee0edb1b94719eb2242881531e79646218704ef3dbf48727195769550");
  EXPECT_EQ(Hex(hashes[1]), "c456b7b4a669c470646700c7550538d4cb1a329226baa7260494617e1e5dca05");
}

TEST(PrefixHashesTest, DoNotDependOnHowTokensCome) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::vector<uint32_t> tokens(5000);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random());
  PrefixHasher hasher;
  std::vector<PrefixHash> hashes;
  for (size_t next = 0; next < tokens.size();) {
    const size_t taken = std::min<size_t>(random() % 700, tokens.size() - next);
    hasher.Add(std::span(tokens).subspan(next, taken), hashes);
    next += taken;
    EXPECT_EQ(hasher.blocks(), next / kPrefixBlockTokens);
  }
  EXPECT_EQ(hashes, PrefixHashes(tokens));
}

TEST(PrefixHashesTest, ATokenChangesItsBlockAndAllBehindIt) {
  std::vector<uint32_t> tokens(4 * kPrefixBlockTokens, 7);
  const std::vector<PrefixHash> before = PrefixHashes(tokens);
  tokens[kPrefixBlockTokens + 3] ^= 1u << 31;
  const std::vector<PrefixHash> after = PrefixHashes(tokens);
  EXPECT_EQ(before[0], after[0]);
  for (size_t i = 1; i < 4; ++i) EXPECT_NE(before[i], after[i]);
  // Equal blocks at other places are other prefixes.
  EXPECT_NE(before[1], before[2]);
}

}  // namespace
}  // namespace attic
