// What a session is beside its model and its tokens; said when it is opened.
#ifndef ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_
#define ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"

namespace attic {

struct SessionAttributes {
  Durability durability = Durability::kMemory;
  std::string tenant;
  uint32_t ttl_seconds = 0;            // 0: no lease
  int64_t reused_tokens = 0;           // there from the start, through a prefix
  std::optional<Placement> placement;  // in a cluster

  bool operator==(const SessionAttributes&) const = default;
};

// As bytes in a form of its own, for the session's record on disk.
// What the record of a durable session says beside: attributes, and what may change.
struct RecordedAttributes {
  SessionAttributes attributes;
  bool pinned = false;
  std::vector<PrefixHash> prefix_hashes;  // of blocks that are held, or are to come

  bool operator==(const RecordedAttributes&) const = default;
};

std::string EncodeSessionAttributes(const RecordedAttributes& recorded);
// DATA_LOSS when the bytes make no sense.
absl::StatusOr<RecordedAttributes> DecodeSessionAttributes(const std::string& bytes);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_
