// Which sessions a store may close by itself, and in what order.
//
// Only sessions whose lease has ended and that are not pinned: nothing else is ever given up, not
// even when memory is short, for somebody still counts on it. Sessions in memory are closed when
// their lease ends; durable ones when memory or a place for a session is needed.
#ifndef ATTIC_SERVER_SESSION_EVICTION_H_
#define ATTIC_SERVER_SESSION_EVICTION_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/session/session.h"

namespace attic {

// Of `sessions` those in memory whose lease has ended, ended for good: the caller closes them.
std::vector<std::shared_ptr<Session>> EndLeases(std::span<const std::shared_ptr<Session>> sessions,
                                                absl::Time now);

// The session to close first to make room, its lease ended for good; null when there is none. The
// one with the largest product of idle time and bytes: what is large and long unused is worth least
// for what it takes. With a tenant only its sessions. Bytes that forks share count for each of
// them.
std::shared_ptr<Session> ChooseVictim(std::span<const std::shared_ptr<Session>> sessions,
                                      const std::string* tenant, absl::Time now);

// Whether closing sessions helps against the error, and whose: memory or places of the store, or of
// one tenant.
enum class Shortage { kNone, kOfTenant, kOfStore };
Shortage ShortageOf(const absl::Status& status);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_EVICTION_H_
