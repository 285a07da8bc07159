#include "server/session/session_attributes.h"

#include <cstring>
#include <span>

#include "base/byte_codec.h"

namespace attic {
namespace {

constexpr uint32_t kVersion = 1;

}  // namespace

std::string EncodeSessionAttributes(const RecordedAttributes& recorded) {
  const SessionAttributes& attributes = recorded.attributes;
  ByteWriter writer;
  writer.Put(kVersion);
  writer.Put(attributes.durability);
  writer.PutText(attributes.tenant);
  writer.Put(attributes.ttl_seconds);
  writer.Put(attributes.reused_tokens);
  writer.Put(recorded.pinned);
  const std::vector<PrefixHash>& hashes = recorded.prefix_hashes;
  writer.PutArray(std::span<const uint8_t>(hashes.empty() ? nullptr : hashes.front().data(),
                                           hashes.size() * kPrefixHashBytes));
  return writer.Take();
}

absl::StatusOr<RecordedAttributes> DecodeSessionAttributes(const std::string& bytes) {
  ByteReader reader(bytes);
  const auto version = reader.Get<uint32_t>();
  RecordedAttributes recorded;
  SessionAttributes& attributes = recorded.attributes;
  attributes.durability = reader.Get<Durability>();
  attributes.tenant = reader.GetText();
  attributes.ttl_seconds = reader.Get<uint32_t>();
  attributes.reused_tokens = reader.Get<int64_t>();
  const auto pinned = reader.Get<uint8_t>();
  recorded.pinned = pinned != 0;
  const std::vector<uint8_t> hashes = reader.GetArray<uint8_t>();
  if (hashes.size() % kPrefixHashBytes != 0 || pinned > 1 || version != kVersion ||
      !reader.AtEnd() || attributes.durability != Durability::kDurable) {
    return absl::DataLossError("attributes of a session cannot be read");
  }
  recorded.prefix_hashes.resize(hashes.size() / kPrefixHashBytes);
  if (!hashes.empty()) {
    std::memcpy(recorded.prefix_hashes.data(), hashes.data(), hashes.size());
  }
  return recorded;
}

}  // namespace attic
