#include "server/session/session_attributes.h"

#include "base/byte_codec.h"

namespace attic {
namespace {

constexpr uint32_t kVersion = 1;

}  // namespace

std::string EncodeSessionAttributes(const SessionAttributes& attributes) {
  ByteWriter writer;
  writer.Put(kVersion);
  writer.Put(attributes.durability);
  writer.PutText(attributes.tenant);
  writer.Put(attributes.ttl_seconds);
  writer.Put(attributes.reused_tokens);
  return writer.Take();
}

absl::StatusOr<SessionAttributes> DecodeSessionAttributes(const std::string& bytes) {
  ByteReader reader(bytes);
  const auto version = reader.Get<uint32_t>();
  SessionAttributes attributes;
  attributes.durability = reader.Get<Durability>();
  attributes.tenant = reader.GetText();
  attributes.ttl_seconds = reader.Get<uint32_t>();
  attributes.reused_tokens = reader.Get<int64_t>();
  if (version != kVersion || !reader.AtEnd() || attributes.durability != Durability::kDurable) {
    return absl::DataLossError("attributes of a session cannot be read");
  }
  return attributes;
}

}  // namespace attic
