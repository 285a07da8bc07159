// What a session is beside its model and its tokens; said when it is opened.
#ifndef ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_
#define ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_

#include <cstdint>
#include <string>

#include "api/types.h"

namespace attic {

struct SessionAttributes {
  Durability durability = Durability::kMemory;
  std::string tenant;
  uint32_t ttl_seconds = 0;   // 0: no lease
  int64_t reused_tokens = 0;  // there from the start, through a prefix

  bool operator==(const SessionAttributes&) const = default;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_ATTRIBUTES_H_
