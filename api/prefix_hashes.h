// A chain of hashes over the tokens of a sequence: two sequences with an equal i'th hash have equal
// first i blocks of tokens. Stores find common prefixes by it without knowing tokens.
//
//   h_0 = SHA-256("attic prefix v1")
//   h_i = SHA-256(h_{i-1} || the i'th block's token ids, each as a little-endian uint32)
#ifndef ATTIC_API_PREFIX_HASHES_H_
#define ATTIC_API_PREFIX_HASHES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attic {

inline constexpr size_t kPrefixBlockTokens = 256;
inline constexpr size_t kPrefixHashBytes = 32;

using PrefixHash = std::array<uint8_t, kPrefixHashBytes>;

// Takes tokens as they come. Not thread-safe; copies go their own ways.
class PrefixHasher {
 public:
  PrefixHasher();

  // Adds tokens, and appends to `hashes` those of the blocks they complete.
  void Add(std::span<const uint32_t> tokens, std::vector<PrefixHash>& hashes);

  // Whole blocks so far.
  size_t blocks() const { return blocks_; }

 private:
  PrefixHash last_;
  size_t blocks_ = 0;
  std::vector<uint32_t> block_;  // tokens of the block begun
};

// The hashes of the whole blocks of `tokens`: tokens.size() / kPrefixBlockTokens of them.
std::vector<PrefixHash> PrefixHashes(std::span<const uint32_t> tokens);

}  // namespace attic

#endif  // ATTIC_API_PREFIX_HASHES_H_
