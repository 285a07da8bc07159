#include "api/prefix_hashes.h"

#include <openssl/sha.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

namespace attic {
namespace {

constexpr std::string_view kDomain = "attic prefix v1";
static_assert(std::endian::native == std::endian::little, "token ids are hashed as they lie");

}  // namespace

PrefixHasher::PrefixHasher() {
  SHA256(reinterpret_cast<const unsigned char*>(kDomain.data()), kDomain.size(), last_.data());
  block_.reserve(kPrefixBlockTokens);
}

void PrefixHasher::Add(std::span<const uint32_t> tokens, std::vector<PrefixHash>& hashes) {
  std::array<unsigned char, kPrefixHashBytes + kPrefixBlockTokens * sizeof(uint32_t)> message;
  while (!tokens.empty()) {
    const size_t taken = std::min(tokens.size(), kPrefixBlockTokens - block_.size());
    block_.insert(block_.end(), tokens.begin(), tokens.begin() + taken);
    tokens = tokens.subspan(taken);
    if (block_.size() < kPrefixBlockTokens) return;
    std::memcpy(message.data(), last_.data(), kPrefixHashBytes);
    std::memcpy(message.data() + kPrefixHashBytes, block_.data(),
                kPrefixBlockTokens * sizeof(uint32_t));
    SHA256(message.data(), message.size(), last_.data());
    hashes.push_back(last_);
    ++blocks_;
    block_.clear();
  }
}

std::vector<PrefixHash> PrefixHashes(std::span<const uint32_t> tokens) {
  std::vector<PrefixHash> hashes;
  hashes.reserve(tokens.size() / kPrefixBlockTokens);
  PrefixHasher().Add(tokens, hashes);
  return hashes;
}

}  // namespace attic
