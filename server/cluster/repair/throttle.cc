#include "server/cluster/repair/throttle.h"

#include <algorithm>
#include <utility>

namespace attic {

Throttle::Throttle(uint64_t bytes_per_second, std::function<absl::Time()> clock,
                   std::function<bool(absl::Time)> wait_until)
    : bytes_per_second_(bytes_per_second),
      clock_(std::move(clock)),
      wait_until_(std::move(wait_until)) {}

absl::Status Throttle::Take(uint64_t bytes) {
  if (bytes_per_second_ == 0) return absl::OkStatus();
  absl::Time begin;
  {
    MutexLock lock(mutex_);
    begin = std::max(clock_(), free_at_);
    free_at_ =
        begin + absl::Seconds(static_cast<double>(bytes) / static_cast<double>(bytes_per_second_));
  }
  if (begin > clock_() && !wait_until_(begin)) return absl::CancelledError("repair: stopped");
  return absl::OkStatus();
}

}  // namespace attic
