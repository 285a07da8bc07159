#include "client/cpp/cluster/cluster_snapshot_format.h"

#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "api/snapshot_magic.h"
#include "base/byte_codec.h"
#include "base/check.h"
// XXH3_state_t without an allocation of its own.
#define XXH_STATIC_LINKING_ONLY
#include "xxhash.h"

namespace attic {
namespace {

constexpr size_t kChecksumOffset = kClusterSnapshotHeaderBytes - sizeof(uint64_t);
constexpr size_t kHeaderZeros = 24;  // where they begin
constexpr size_t kFrameZeros = 28;

absl::Status Damaged(const char* what) {
  return absl::DataLossError(absl::StrCat("snapshot of a cluster: ", what));
}

bool AllZero(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

void AppendNumber(std::string& bytes, uint64_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

uint64_t ChecksumIn(std::string_view header) {
  uint64_t number;
  std::memcpy(&number, header.data() + kChecksumOffset, sizeof(number));
  return number;
}

uint64_t FrameChecksum(uint64_t identity, std::string_view header, std::string_view payload) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);  // a seed left on the stack would pass for one that was prepared
  XXH3_64bits_reset_withSeed(&state, identity);
  XXH3_64bits_update(&state, header.data(), kChecksumOffset);
  if (!payload.empty()) XXH3_64bits_update(&state, payload.data(), payload.size());
  return XXH3_64bits_digest(&state);
}

}  // namespace

std::string EncodeClusterSnapshotHeader(uint64_t identity) {
  ByteWriter writer;
  writer.Put(kClusterSnapshotVersion);
  writer.Put(uint32_t{0});
  writer.Put(identity);
  std::string bytes = std::string(kClusterSnapshotMagic) + writer.Take();
  bytes.resize(kChecksumOffset, '\0');
  AppendNumber(bytes, XXH3_64bits(bytes.data(), bytes.size()));
  return bytes;
}

absl::StatusOr<uint64_t> DecodeClusterSnapshotHeader(std::string_view bytes) {
  ATTIC_CHECK(bytes.size() == kClusterSnapshotHeaderBytes);
  if (bytes.starts_with(kStoreSnapshotMagic)) {
    return absl::FailedPreconditionError(
        "snapshot: the file is of a session of one store; import it into a store that is no node "
        "of a cluster");
  }
  if (!bytes.starts_with(kClusterSnapshotMagic)) {
    return Damaged("it is none, or its first bytes are damaged");
  }
  if (ChecksumIn(bytes) != XXH3_64bits(bytes.data(), kChecksumOffset)) {
    return Damaged("the checksum of its header");
  }
  ByteReader reader(std::span(bytes.data(), bytes.size()).subspan(kClusterSnapshotMagic.size()));
  const auto version = reader.Get<uint32_t>();
  if (version != kClusterSnapshotVersion) {
    return absl::FailedPreconditionError(absl::StrCat("snapshot of a cluster: of version ", version,
                                                      ", this program reads ",
                                                      kClusterSnapshotVersion));
  }
  const auto zero = reader.Get<uint32_t>();
  const auto identity = reader.Get<uint64_t>();
  if (zero != 0 || !AllZero(bytes.substr(kHeaderZeros, kChecksumOffset - kHeaderZeros))) {
    return Damaged("its header");
  }
  return identity;
}

std::string EncodeClusterFrame(uint64_t identity, const ClusterFrame& frame,
                               std::string_view payload) {
  ATTIC_CHECK(payload.size() == frame.payload_bytes && payload.size() <= kClusterFramePayloadMax);
  ByteWriter writer;
  writer.Put(frame.kind);
  writer.Put(frame.shard.layer);
  writer.Put(frame.shard.kv_head);
  writer.Put(frame.shard.block);
  writer.Put(frame.number);
  writer.Put(frame.payload_bytes);
  std::string bytes = writer.Take();
  bytes.reserve(kClusterSnapshotHeaderBytes + payload.size());
  bytes.resize(kChecksumOffset, '\0');
  AppendNumber(bytes, FrameChecksum(identity, bytes, payload));
  bytes.append(payload);
  return bytes;
}

absl::StatusOr<ClusterFrame> DecodeClusterFrame(std::string_view header) {
  ATTIC_CHECK(header.size() == kClusterSnapshotHeaderBytes);
  ByteReader reader(std::span(header.data(), header.size()));
  ClusterFrame frame;
  frame.kind = reader.Get<ClusterFrameKind>();
  frame.shard.layer = reader.Get<uint32_t>();
  frame.shard.kv_head = reader.Get<uint32_t>();
  frame.shard.block = reader.Get<uint32_t>();
  frame.number = reader.Get<uint64_t>();
  frame.payload_bytes = reader.Get<uint32_t>();
  const bool known =
      frame.kind >= ClusterFrameKind::kSession && frame.kind <= ClusterFrameKind::kEnd;
  const bool of_shard =
      frame.kind != ClusterFrameKind::kSession && frame.kind != ClusterFrameKind::kEnd;
  if (!known || frame.payload_bytes > kClusterFramePayloadMax ||
      (!of_shard && frame.shard != ShardId()) ||
      !AllZero(header.substr(kFrameZeros, kChecksumOffset - kFrameZeros))) {
    return Damaged("the header of a frame");
  }
  return frame;
}

absl::Status CheckClusterFrame(uint64_t identity, std::string_view header,
                               std::string_view payload) {
  if (ChecksumIn(header) == FrameChecksum(identity, header, payload)) return absl::OkStatus();
  return Damaged("the checksum of a frame");
}

}  // namespace attic
