#include "api/shard.h"

#include <xxhash.h>

#include <charconv>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

uint32_t SlotOf(const std::string& bytes, uint32_t slots) {
  ATTIC_CHECK(slots > 0);
  return static_cast<uint32_t>(XXH3_64bits(bytes.data(), bytes.size()) % slots);
}

// Reads a number without sign or leading zeros; false when there is none.
bool ReadNumber(const char*& begin, const char* end, uint32_t& number) {
  if (begin == end || (*begin == '0' && begin + 1 != end && begin[1] >= '0' && begin[1] <= '9')) {
    return false;
  }
  const auto [next, error] = std::from_chars(begin, end, number);
  if (error != std::errc()) return false;
  begin = next;
  return true;
}

bool ReadPoint(const char*& begin, const char* end) {
  if (begin == end || *begin != '.') return false;
  ++begin;
  return true;
}

}  // namespace

std::string ShardSessionId(const std::string& session_id, const ShardId& shard) {
  std::string id =
      absl::StrCat(session_id, std::string(1, kShardSeparator), shard.layer, ".", shard.kv_head);
  if (shard.block > 0) absl::StrAppend(&id, ".", shard.block);
  return id;
}

std::optional<ShardName> ParseShardSessionId(const std::string& id) {
  const size_t separator = id.find(kShardSeparator);
  if (separator == std::string::npos || separator == 0) return std::nullopt;
  ShardName name{.session_id = id.substr(0, separator), .shard = {}};
  const char* at = id.data() + separator + 1;
  const char* const end = id.data() + id.size();
  if (!ReadNumber(at, end, name.shard.layer) || !ReadPoint(at, end) ||
      !ReadNumber(at, end, name.shard.kv_head)) {
    return std::nullopt;
  }
  if (at == end) return name;
  if (!ReadPoint(at, end) || !ReadNumber(at, end, name.shard.block) || at != end ||
      name.shard.block == 0) {
    return std::nullopt;
  }
  return name;
}

Fingerprint ShardFingerprint(const Fingerprint& session) {
  Fingerprint shard = session;
  shard.q_heads = session.group();
  shard.kv_heads = 1;
  return shard;
}

uint32_t SlotOfShard(const std::string& placement_key, const ShardId& shard, uint32_t slots) {
  return SlotOf(
      absl::StrCat("shard/", shard.layer, "/", shard.kv_head, "/", shard.block, "/", placement_key),
      slots);
}

uint32_t SlotOfManifest(const std::string& session_id, uint32_t slots) {
  return SlotOf(absl::StrCat("manifest/", session_id), slots);
}

std::string PlacementKey(const std::string& session_id, std::span<const PrefixHash> prefix_hashes) {
  if (prefix_hashes.empty()) return session_id;
  std::string key;
  for (const uint8_t byte : prefix_hashes.front()) {
    key += kHexDigits[byte >> 4];
    key += kHexDigits[byte & 15];
  }
  return key;
}

}  // namespace attic
