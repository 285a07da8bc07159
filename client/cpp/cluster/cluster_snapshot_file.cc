#include "client/cpp/cluster/cluster_snapshot_file.h"

#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attic/v1/session.pb.h"
#include "base/byte_codec.h"
#include "base/status_macros.h"
#include "wire/convert.h"

namespace attic {
namespace {

absl::Status Damaged(const char* what) {
  return absl::DataLossError(absl::StrCat("snapshot of a cluster: ", what));
}

}  // namespace

std::string ClusterSnapshotWriter::Frame(ClusterFrameKind kind, const ShardId& shard,
                                         std::string_view payload) {
  std::string bytes = EncodeClusterFrame(identity_,
                                         {.kind = kind,
                                          .shard = shard,
                                          .number = frames_++,
                                          .payload_bytes = static_cast<uint32_t>(payload.size())},
                                         payload);
  bytes_ += bytes.size();
  return bytes;
}

std::string ClusterSnapshotWriter::Begin(const SessionDescription& session) {
  std::string header = EncodeClusterSnapshotHeader(identity_);
  bytes_ += header.size();
  return header + Frame(ClusterFrameKind::kSession, {}, wire::ToWire(session).SerializeAsString());
}

std::string ClusterSnapshotWriter::StartShard(const ShardId& shard) {
  shard_ = shard;
  shard_bytes_ = 0;
  return Frame(ClusterFrameKind::kShard, shard, {});
}

std::string ClusterSnapshotWriter::Bytes(std::string_view bytes) {
  shard_bytes_ += bytes.size();
  return Frame(ClusterFrameKind::kBytes, shard_, bytes);
}

std::string ClusterSnapshotWriter::EndShard() {
  ByteWriter writer;
  writer.Put(shard_bytes_);
  return Frame(ClusterFrameKind::kShardEnd, shard_, writer.Take());
}

std::string ClusterSnapshotWriter::End() {
  ByteWriter writer;
  writer.Put(frames_);
  writer.Put(bytes_);
  return Frame(ClusterFrameKind::kEnd, {}, writer.Take());
}

absl::Status ClusterSnapshotReader::Read(std::string_view bytes) {
  if (error_.ok()) error_ = ReadAll(bytes);
  return error_;
}

absl::Status ClusterSnapshotReader::Finish() {
  if (error_.ok() && (!ended_ || !pending_.empty())) error_ = Damaged("it is not whole");
  return error_;
}

absl::Status ClusterSnapshotReader::ReadAll(std::string_view bytes) {
  constexpr size_t kPartMax = kSnapshotHeaderBytes + kClusterFramePayloadMax;
  while (!bytes.empty()) {
    if (pending_.empty()) {
      ATTIC_ASSIGN_OR_RETURN(const bool taken, TakePart(bytes));
      if (taken) continue;
    }
    // Not all of a part is there: what is missing comes to what was kept.
    const std::string_view more = bytes.substr(0, kPartMax - pending_.size());
    const size_t kept = pending_.size();
    pending_.append(more);
    std::string_view part = pending_;
    ATTIC_ASSIGN_OR_RETURN(const bool taken, TakePart(part));
    if (!taken) {
      bytes.remove_prefix(more.size());
      continue;
    }
    bytes.remove_prefix(pending_.size() - part.size() - kept);
    pending_.clear();
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ClusterSnapshotReader::TakePart(std::string_view& bytes) {
  if (ended_) return Damaged("something lies behind its end");
  if (bytes.size() < kSnapshotHeaderBytes) return false;
  const std::string_view header = bytes.substr(0, kSnapshotHeaderBytes);
  if (!has_header_) {
    ATTIC_ASSIGN_OR_RETURN(identity_, DecodeClusterSnapshotHeader(header));
    has_header_ = true;
    bytes_ += header.size();
    bytes.remove_prefix(header.size());
    return true;
  }
  ATTIC_ASSIGN_OR_RETURN(const ClusterFrame frame, DecodeClusterFrame(header));
  if (bytes.size() - header.size() < frame.payload_bytes) return false;
  const std::string_view payload = bytes.substr(header.size(), frame.payload_bytes);
  ATTIC_RETURN_IF_ERROR(CheckClusterFrame(identity_, header, payload));
  if (frame.number != frames_) return Damaged("frames are missing or not in order");
  ATTIC_RETURN_IF_ERROR(TakeFrame(frame, payload));
  ++frames_;
  bytes_ += header.size() + payload.size();
  bytes.remove_prefix(header.size() + payload.size());
  return true;
}

absl::Status ClusterSnapshotReader::TakeFrame(const ClusterFrame& frame, std::string_view payload) {
  if (has_session_ != (frame.kind != ClusterFrameKind::kSession)) {
    return Damaged("it does not begin with a session, or has two");
  }
  if (frame.kind == ClusterFrameKind::kSession) return TakeSession(payload);
  if (frame.kind != ClusterFrameKind::kEnd) return TakeOfShard(frame, payload);
  if (shard_.has_value()) return Damaged("a shard has no end");
  ByteReader reader(std::span(payload.data(), payload.size()));
  const auto frames = reader.Get<uint64_t>();
  const auto bytes = reader.Get<uint64_t>();
  if (!reader.AtEnd() || frames != frames_ || bytes != bytes_) {
    return Damaged("its end counts otherwise");
  }
  ended_ = true;
  return absl::OkStatus();
}

absl::Status ClusterSnapshotReader::TakeSession(std::string_view payload) {
  v1::SessionDescription message;
  if (!message.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return Damaged("its session cannot be read");
  }
  const absl::StatusOr<SessionDescription> session = wire::FromWire(message);
  if (!session.ok()) return Damaged("its session makes no sense");
  has_session_ = true;
  return visitor_.OnSession(*session);
}

absl::Status ClusterSnapshotReader::TakeOfShard(const ClusterFrame& frame,
                                                std::string_view payload) {
  if (frame.kind == ClusterFrameKind::kShard) {
    if (!payload.empty() || (shard_.has_value() && *shard_ != frame.shard)) {
      return Damaged("a shard begins before the one before it has ended");
    }
    shard_ = frame.shard;
    shard_bytes_ = 0;
    return visitor_.OnShard(frame.shard);
  }
  if (shard_ != frame.shard) return Damaged("a frame is of a shard that has not begun");
  if (frame.kind == ClusterFrameKind::kBytes) {
    shard_bytes_ += payload.size();
    return visitor_.OnBytes(payload);
  }
  ByteReader reader(std::span(payload.data(), payload.size()));
  const auto bytes = reader.Get<uint64_t>();
  if (!reader.AtEnd() || bytes != shard_bytes_)
    return Damaged("the end of a shard counts otherwise");
  shard_.reset();
  return visitor_.OnShardEnd();
}

}  // namespace attic
