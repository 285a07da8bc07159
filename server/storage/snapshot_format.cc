#include "server/storage/snapshot_format.h"

#include <span>

#include "absl/strings/str_cat.h"
#include "api/snapshot_frames.h"
#include "base/byte_codec.h"
#include "base/check.h"
// XXH3_state_t without an allocation of its own.
#define XXH_STATIC_LINKING_ONLY
#include "xxhash.h"

namespace attic {
namespace {

constexpr std::string_view kWhat = "snapshot";

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(absl::StrCat(std::string(kWhat), ": ", std::string(what)));
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
  return EncodeFileHeader(kStoreSnapshotMagic, kSnapshotFormatVersion, identity);
}

absl::StatusOr<uint64_t> DecodeSnapshotHeader(std::string_view bytes) {
  if (bytes.starts_with(kClusterSnapshotMagic)) {
    return absl::FailedPreconditionError(
        "snapshot: the file is of a session of a cluster; import it into a cluster");
  }
  return DecodeFileHeader(bytes, kStoreSnapshotMagic, kSnapshotFormatVersion, kWhat);
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
  return EncodeFrame(identity, writer.Take(), payload);
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
  constexpr size_t kFieldsBytes = 40;
  if (block.item.kind < SnapshotKind::kSession || block.item.kind > SnapshotKind::kEnd ||
      block.payload_bytes > kSnapshotPayloadBytesMax || block.item_bytes > kSnapshotItemBytesMax ||
      block.item_offset > block.item_bytes ||
      block.payload_bytes > block.item_bytes - block.item_offset ||
      !EndsInZeros(header, kFieldsBytes)) {
    return Damaged("a block's header");
  }
  return block;
}

absl::Status CheckSnapshotBlock(uint64_t identity, std::string_view header,
                                std::string_view payload) {
  if (FrameIsWhole(identity, header, payload)) return absl::OkStatus();
  return Damaged("the checksum of a block");
}

std::string EncodeSnapshotEnd(const SnapshotEnd& end) {
  ByteWriter writer;
  writer.Put(end.blocks);
  writer.Put(end.bytes);
  writer.Put(end.checksum);
  return writer.Take();
}

absl::StatusOr<SnapshotEnd> DecodeSnapshotEnd(std::string_view payload) {
  if (payload.size() != 3 * sizeof(uint64_t)) return Damaged("its end");
  ByteReader reader(std::span(payload.data(), payload.size()));
  SnapshotEnd end;
  end.blocks = reader.Get<uint64_t>();
  end.bytes = reader.Get<uint64_t>();
  end.checksum = reader.Get<uint64_t>();
  return end;
}

}  // namespace attic
