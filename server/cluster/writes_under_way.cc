#include "server/cluster/writes_under_way.h"

namespace attic {

std::shared_ptr<const void> WritesUnderWay::Begin(uint64_t epoch) {
  {
    MutexLock lock(mutex_);
    ++writes_[epoch];
  }
  return {this, [epoch](WritesUnderWay* writes) { writes->End(epoch); }};
}

void WritesUnderWay::End(uint64_t epoch) {
  MutexLock lock(mutex_);
  const auto found = writes_.find(epoch);
  if (--found->second == 0) writes_.erase(found);
}

bool WritesUnderWay::AnyBefore(uint64_t epoch) const {
  MutexLock lock(mutex_);
  return !writes_.empty() && writes_.begin()->first < epoch;
}

}  // namespace attic
