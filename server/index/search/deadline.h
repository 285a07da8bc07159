// How late a search may still begin something.
#ifndef ATTIC_SERVER_INDEX_SEARCH_DEADLINE_H_
#define ATTIC_SERVER_INDEX_SEARCH_DEADLINE_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace attic {

// What is kept for finishing an answer.
inline constexpr absl::Duration kFinishTime = absl::Microseconds(150);

// True when what is left until `deadline` is only enough to finish an answer.
inline bool DeadlineIsNear(absl::Time deadline) {
  return deadline != absl::InfiniteFuture() && absl::Now() + kFinishTime > deadline;
}

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_DEADLINE_H_
