#include "server/cluster/map_holder.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace attic {
namespace {

// Of one wait on a condition; waits loop.
constexpr absl::Duration kWaitMax = absl::Minutes(10);

}  // namespace

ClusterMapPtr MapHolder::map() const {
  MutexLock lock(mutex_);
  return map_;
}

ClusterMapPtr MapHolder::WaitForNewer(uint64_t epoch, absl::Time deadline) {
  MutexLock lock(mutex_);
  while (!stopped_) {
    if (map_ != nullptr && map_->epoch > epoch) return map_;
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return nullptr;
    changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, kWaitMax)));
  }
  return nullptr;
}

bool MapHolder::Offer(const ClusterMapPtr& map) {
  if (map == nullptr || map->cluster != cluster_ || !ValidateClusterMap(*map).ok()) return false;
  MutexLock lock(mutex_);
  if (map_ != nullptr && map->epoch <= map_->epoch) return false;
  map_ = map;
  changed_.NotifyAll();
  return true;
}

void MapHolder::Stop() {
  MutexLock lock(mutex_);
  stopped_ = true;
  changed_.NotifyAll();
}

}  // namespace attic
