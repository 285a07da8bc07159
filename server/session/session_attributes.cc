#include "server/session/session_attributes.h"

#include <cstring>
#include <span>

#include "api/cluster_map.h"
#include "base/byte_codec.h"

namespace attic {
namespace {

// Version 1 knew no placement.
constexpr uint32_t kVersion = 2;
constexpr uint32_t kOldestVersion = 1;

void PutPlacement(const std::optional<Placement>& placement, ByteWriter& writer) {
  writer.Put(placement.has_value());
  if (!placement.has_value()) return;
  writer.Put(placement->slot);
  writer.PutText(placement->key);
  writer.Put(placement->replication.replicas);
  writer.Put(placement->replication.ack_policy);
  writer.Put(placement->replication.shard_tokens);
  writer.Put(placement->kv_head);
  writer.Put(placement->block);
}

// False when the bytes make no sense.
bool GetPlacement(ByteReader& reader, std::optional<Placement>& placement) {
  const auto placed = reader.Get<uint8_t>();
  if (placed == 0) return true;
  placement.emplace();
  placement->slot = reader.Get<uint32_t>();
  placement->key = reader.GetText();
  placement->replication.replicas = reader.Get<uint32_t>();
  placement->replication.ack_policy = reader.Get<AckPolicy>();
  placement->replication.shard_tokens = reader.Get<int64_t>();
  placement->kv_head = reader.Get<uint32_t>();
  placement->block = reader.Get<uint32_t>();
  const AckPolicy policy = placement->replication.ack_policy;
  return placed == 1 && placement->replication.replicas <= kReplicasMax &&
         policy >= AckPolicy::kOne && policy <= AckPolicy::kAll &&
         placement->replication.shard_tokens >= 0;
}

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
  PutPlacement(attributes.placement, writer);
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
  const bool placed = version < 2 || GetPlacement(reader, attributes.placement);
  const std::vector<uint8_t> hashes = reader.GetArray<uint8_t>();
  if (hashes.size() % kPrefixHashBytes != 0 || pinned > 1 || !placed || version < kOldestVersion ||
      version > kVersion || !reader.AtEnd() || attributes.durability != Durability::kDurable) {
    return absl::DataLossError("attributes of a session cannot be read");
  }
  recorded.prefix_hashes.resize(hashes.size() / kPrefixHashBytes);
  if (!hashes.empty()) {
    std::memcpy(recorded.prefix_hashes.data(), hashes.data(), hashes.size());
  }
  return recorded;
}

}  // namespace attic
