// Bytes a second, over all who share it.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_THROTTLE_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_THROTTLE_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic {

// Thread-safe. Over any time since the first Take, at most bytes_per_second times it and one Take
// of every thread were let through: nothing is saved up while nobody takes.
class Throttle {
 public:
  // `clock` says the time; `wait_until` returns true at the given time, or false when waiting has
  // to end. bytes_per_second 0: no limit.
  Throttle(uint64_t bytes_per_second, std::function<absl::Time()> clock,
           std::function<bool(absl::Time)> wait_until);

  // Returns when what others took before has had its time. CANCELLED when waiting had to end.
  absl::Status Take(uint64_t bytes);

 private:
  const uint64_t bytes_per_second_;
  const std::function<absl::Time()> clock_;
  const std::function<bool(absl::Time)> wait_until_;
  Mutex mutex_;
  absl::Time free_at_ ATTIC_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_THROTTLE_H_
