#include "server/storage/snapshot_format.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "api/snapshot_magic.h"
#include "base/byte_codec.h"
#include "base/check.h"
// XXH3_state_t without an allocation of its own.
#define XXH_STATIC_LINKING_ONLY
#include "xxhash.h"

namespace attic {
namespace {

constexpr std::string_view kMagic = kStoreSnapshotMagic;
constexpr size_t kChecksumOffset = kSnapshotHeaderBytes - sizeof(uint64_t);

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(absl::StrCat("snapshot: ", std::string(what)));
}

void AppendZeros(std::string& bytes, size_t size) { bytes.resize(size, '\0'); }

bool AllZero(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

void AppendNumber(std::string& bytes, uint64_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

uint64_t Number(std::string_view bytes, size_t offset) {
  uint64_t number;
  ATTIC_CHECK(offset + sizeof(number) <= bytes.size());
  std::memcpy(&number, bytes.data() + offset, sizeof(number));
  return number;
}

uint64_t BlockChecksumOf(uint64_t identity, std::string_view header, std::string_view payload) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);  // a seed left on the stack would pass for one that was prepared
  XXH3_64bits_reset_withSeed(&state, identity);
  XXH3_64bits_update(&state, header.data(), kChecksumOffset);
  if (!payload.empty()) XXH3_64bits_update(&state, payload.data(), payload.size());
  return XXH3_64bits_digest(&state);
}

}  // namespace

struct RunningChecksum::State {
  XXH3_state_t xxh3;
};

RunningChecksum::RunningChecksum() : state_(std::make_shared<State>()) {
  XXH3_64bits_reset(&state_->xxh3);
}

void RunningChecksum::Update(std::string_view bytes) {
  if (!bytes.empty()) XXH3_64bits_update(&state_->xxh3, bytes.data(), bytes.size());
}

uint64_t RunningChecksum::value() const { return XXH3_64bits_digest(&state_->xxh3); }

std::string EncodeSnapshotHeader(uint64_t identity) {
  ByteWriter writer;
  writer.Put(kSnapshotFormatVersion);
  writer.Put(uint32_t{0});
  writer.Put(identity);
  std::string bytes = std::string(kMagic) + writer.Take();
  AppendZeros(bytes, kChecksumOffset);
  AppendNumber(bytes, XXH3_64bits(bytes.data(), bytes.size()));
  return bytes;
}

absl::StatusOr<uint64_t> DecodeSnapshotHeader(std::string_view bytes) {
  ATTIC_CHECK(bytes.size() == kSnapshotHeaderBytes);
  if (bytes.starts_with(kClusterSnapshotMagic)) {
    return absl::FailedPreconditionError(
        "snapshot: the file is of a session of a cluster; import it into a cluster");
  }
  if (!bytes.starts_with(kMagic)) return Damaged("it is none, or its first bytes are damaged");
  if (Number(bytes, kChecksumOffset) != XXH3_64bits(bytes.data(), kChecksumOffset)) {
    return Damaged("the checksum of its header");
  }
  ByteReader reader(std::span(bytes.data(), bytes.size()).subspan(kMagic.size()));
  const auto version = reader.Get<uint32_t>();
  if (version != kSnapshotFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "snapshot: of version ", version, ", this program reads ", kSnapshotFormatVersion));
  }
  const auto zero = reader.Get<uint32_t>();
  const auto identity = reader.Get<uint64_t>();
  constexpr size_t kZeros = 24;
  if (zero != 0 || !AllZero(bytes.substr(kZeros, kChecksumOffset - kZeros))) {
    return Damaged("its header");
  }
  return identity;
}

std::string EncodeSnapshotBlock(uint64_t identity, const SnapshotBlock& block,
                                std::string_view payload) {
  ATTIC_CHECK(payload.size() == block.payload_bytes && payload.size() <= kSnapshotPayloadBytesMax);
  ByteWriter writer;
  writer.Put(block.item.kind);
  writer.Put(block.item.layer);
  writer.Put(block.item.kv_head);
  writer.Put(block.payload_bytes);
  writer.Put(block.number);
  writer.Put(block.item_bytes);
  writer.Put(block.item_offset);
  std::string bytes = writer.Take();
  bytes.reserve(kSnapshotHeaderBytes + payload.size());
  AppendZeros(bytes, kChecksumOffset);
  AppendNumber(bytes, BlockChecksumOf(identity, bytes, payload));
  bytes.append(payload);
  return bytes;
}

absl::StatusOr<SnapshotBlock> DecodeSnapshotBlock(std::string_view header) {
  ATTIC_CHECK(header.size() == kSnapshotHeaderBytes);
  ByteReader reader(std::span(header.data(), header.size()));
  SnapshotBlock block;
  block.item.kind = reader.Get<SnapshotKind>();
  block.item.layer = reader.Get<uint32_t>();
  block.item.kv_head = reader.Get<uint32_t>();
  block.payload_bytes = reader.Get<uint32_t>();
  block.number = reader.Get<uint64_t>();
  block.item_bytes = reader.Get<uint64_t>();
  block.item_offset = reader.Get<uint64_t>();
  constexpr size_t kZeros = 40;
  if (block.item.kind < SnapshotKind::kSession || block.item.kind > SnapshotKind::kEnd ||
      block.payload_bytes > kSnapshotPayloadBytesMax || block.item_bytes > kSnapshotItemBytesMax ||
      block.item_offset > block.item_bytes ||
      block.payload_bytes > block.item_bytes - block.item_offset ||
      !AllZero(header.substr(kZeros, kChecksumOffset - kZeros))) {
    return Damaged("a block's header");
  }
  return block;
}

absl::Status CheckSnapshotBlock(uint64_t identity, std::string_view header,
                                std::string_view payload) {
  if (Number(header, kChecksumOffset) == BlockChecksumOf(identity, header, payload)) {
    return absl::OkStatus();
  }
  return Damaged("the checksum of a block");
}

std::string EncodeSnapshotEnd(const SnapshotEnd& end) {
  std::string bytes;
  AppendNumber(bytes, end.blocks);
  AppendNumber(bytes, end.bytes);
  AppendNumber(bytes, end.checksum);
  return bytes;
}

absl::StatusOr<SnapshotEnd> DecodeSnapshotEnd(std::string_view payload) {
  if (payload.size() != 3 * sizeof(uint64_t)) return Damaged("its end");
  return SnapshotEnd{.blocks = Number(payload, 0),
                     .bytes = Number(payload, sizeof(uint64_t)),
                     .checksum = Number(payload, 2 * sizeof(uint64_t))};
}

}  // namespace attic
