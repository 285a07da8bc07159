// The outline of a cluster's snapshot: a header, frames of at most 1 MiB, and an end that counts
// them. SNAPSHOT.md says what every byte means.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SNAPSHOT_FORMAT_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SNAPSHOT_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/shard.h"
#include "api/snapshot_frames.h"

namespace attic {

inline constexpr uint32_t kClusterSnapshotVersion = 1;
inline constexpr size_t kClusterFramePayloadMax = 1u << 20;

enum class ClusterFrameKind : uint32_t {
  kSession = 1,
  kShard = 2,     // its bytes follow, from the first
  kBytes = 3,     // of the shard
  kShardEnd = 4,  // all bytes of the shard came
  kEnd = 5,
};

struct ClusterFrame {
  ClusterFrameKind kind = ClusterFrameKind::kSession;
  ShardId shard;        // zeros for kSession and kEnd
  uint64_t number = 0;  // from 0, in the order of the file
  uint32_t payload_bytes = 0;
  bool operator==(const ClusterFrame&) const = default;
};

std::string EncodeClusterSnapshotHeader(uint64_t identity);
// Of kSnapshotHeaderBytes; returns the identity.
//   DATA_LOSS; FAILED_PRECONDITION: of another version, or of one store.
absl::StatusOr<uint64_t> DecodeClusterSnapshotHeader(std::string_view bytes);

// A frame with its payload, which has frame.payload_bytes.
std::string EncodeClusterFrame(uint64_t identity, const ClusterFrame& frame,
                               std::string_view payload);
// Of kSnapshotHeaderBytes. Its payload may follow; nothing is certain before
// CheckClusterFrame.
//   DATA_LOSS: what no frame has.
absl::StatusOr<ClusterFrame> DecodeClusterFrame(std::string_view header);
// DATA_LOSS when the checksum is another.
absl::Status CheckClusterFrame(uint64_t identity, std::string_view header,
                               std::string_view payload);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_SNAPSHOT_FORMAT_H_
