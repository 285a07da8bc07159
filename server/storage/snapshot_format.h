// The outline of a snapshot: a header, blocks of at most 1 MiB, and an end that covers all of them.
// SNAPSHOT.md says what every byte means.
#ifndef ATTIC_SERVER_STORAGE_SNAPSHOT_FORMAT_H_
#define ATTIC_SERVER_STORAGE_SNAPSHOT_FORMAT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/snapshot_frames.h"

namespace attic {

inline constexpr uint32_t kSnapshotFormatVersion = 1;
inline constexpr size_t kSnapshotBlockBytesMax = 1u << 20;
inline constexpr size_t kSnapshotPayloadBytesMax = kSnapshotBlockBytesMax - kSnapshotHeaderBytes;
inline constexpr uint64_t kSnapshotItemBytesMax = uint64_t{1} << 31;

enum class SnapshotKind : uint32_t {
  kSession = 1,
  kHeadState = 2,
  kSegment = 3,
  kRows = 4,
  kEnd = 5,
};

// What a block is a part of.
struct SnapshotItemName {
  SnapshotKind kind = SnapshotKind::kSession;
  uint32_t layer = 0;    // 0 where there is none
  uint32_t kv_head = 0;  // likewise
  bool operator==(const SnapshotItemName&) const = default;
};

struct SnapshotBlock {
  SnapshotItemName item;
  uint32_t payload_bytes = 0;
  uint64_t number = 0;  // from 0, in the order of the file
  uint64_t item_bytes = 0;
  uint64_t item_offset = 0;
};

// XXH3-64 of bytes that come piece by piece. Not thread-safe.
class RunningChecksum {
 public:
  RunningChecksum();
  void Update(std::string_view bytes);
  uint64_t value() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

std::string EncodeSnapshotHeader(uint64_t identity);
// Of kSnapshotHeaderBytes; returns the identity.
//   DATA_LOSS; FAILED_PRECONDITION: of another version.
absl::StatusOr<uint64_t> DecodeSnapshotHeader(std::string_view bytes);

// A block with its payload, which has block.payload_bytes.
std::string EncodeSnapshotBlock(uint64_t identity, const SnapshotBlock& block,
                                std::string_view payload);
// Of kSnapshotHeaderBytes. Its payload may follow; nothing is certain before CheckSnapshotBlock.
//   DATA_LOSS: counts that no block has.
absl::StatusOr<SnapshotBlock> DecodeSnapshotBlock(std::string_view header);
absl::Status CheckSnapshotBlock(uint64_t identity, std::string_view header,
                                std::string_view payload);

// What the end says of all bytes before it.
struct SnapshotEnd {
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  uint64_t checksum = 0;
  bool operator==(const SnapshotEnd&) const = default;
};
std::string EncodeSnapshotEnd(const SnapshotEnd& end);
absl::StatusOr<SnapshotEnd> DecodeSnapshotEnd(std::string_view payload);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SNAPSHOT_FORMAT_H_
