// What a session is beside its model and its tokens; said when it is opened.
#ifndef ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_
#define ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "api/types.h"

namespace attic {

struct SessionAttributes {
  Durability durability = Durability::kMemory;
  std::string tenant;
  uint32_t ttl_seconds = 0;   // 0: no lease
  int64_t reused_tokens = 0;  // there from the start, through a prefix

  bool operator==(const SessionAttributes&) const = default;
};

// As bytes in a form of its own, for the session's record on disk.
std::string EncodeSessionAttributes(const SessionAttributes& attributes);
// DATA_LOSS when the bytes make no sense.
absl::StatusOr<SessionAttributes> DecodeSessionAttributes(const std::string& bytes);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_
