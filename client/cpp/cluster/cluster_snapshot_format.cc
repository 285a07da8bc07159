#include "client/cpp/cluster/cluster_snapshot_format.h"

#include <span>

#include "absl/strings/str_cat.h"
#include "base/byte_codec.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr std::string_view kWhat = "snapshot of a cluster";

absl::Status Damaged(const char* what) {
  return absl::DataLossError(absl::StrCat(std::string(kWhat), ": ", what));
}

}  // namespace

std::string EncodeClusterSnapshotHeader(uint64_t identity) {
  return EncodeFileHeader(kClusterSnapshotMagic, kClusterSnapshotVersion, identity);
}

absl::StatusOr<uint64_t> DecodeClusterSnapshotHeader(std::string_view bytes) {
  if (bytes.starts_with(kStoreSnapshotMagic)) {
    return absl::FailedPreconditionError(
        "snapshot: the file is of a session of one store; import it into a store that is no node "
        "of a cluster");
  }
  return DecodeFileHeader(bytes, kClusterSnapshotMagic, kClusterSnapshotVersion, kWhat);
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
  return EncodeFrame(identity, writer.Take(), payload);
}

absl::StatusOr<ClusterFrame> DecodeClusterFrame(std::string_view header) {
  ATTIC_CHECK(header.size() == kSnapshotHeaderBytes);
  ByteReader reader(std::span(header.data(), header.size()));
  ClusterFrame frame;
  frame.kind = reader.Get<ClusterFrameKind>();
  frame.shard.layer = reader.Get<uint32_t>();
  frame.shard.kv_head = reader.Get<uint32_t>();
  frame.shard.block = reader.Get<uint32_t>();
  frame.number = reader.Get<uint64_t>();
  frame.payload_bytes = reader.Get<uint32_t>();
  constexpr size_t kFieldsBytes = 28;
  const bool known =
      frame.kind >= ClusterFrameKind::kSession && frame.kind <= ClusterFrameKind::kEnd;
  const bool of_shard =
      frame.kind != ClusterFrameKind::kSession && frame.kind != ClusterFrameKind::kEnd;
  if (!known || frame.payload_bytes > kClusterFramePayloadMax ||
      (!of_shard && frame.shard != ShardId()) || !EndsInZeros(header, kFieldsBytes)) {
    return Damaged("the header of a frame");
  }
  return frame;
}

absl::Status CheckClusterFrame(uint64_t identity, std::string_view header,
                               std::string_view payload) {
  if (FrameIsWhole(identity, header, payload)) return absl::OkStatus();
  return Damaged("the checksum of a frame");
}

}  // namespace attic
