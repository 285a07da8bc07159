// How many requests may be sent twice: a tenth, so that a slow cluster is not made slower.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_HEDGE_ALLOWANCE_H_
#define ATTIC_CLIENT_CPP_CLUSTER_HEDGE_ALLOWANCE_H_

#include <algorithm>

#include "base/mutex.h"

namespace attic {

// Thread-safe.
class HedgeAllowance {
 public:
  // A request was sent.
  void Earn() {
    MutexLock lock(mutex_);
    saved_ = std::min(kSavedMax, saved_ + kShare);
  }
  // Whether one may be sent again.
  bool Spend() {
    MutexLock lock(mutex_);
    if (saved_ < 1) return false;
    saved_ -= 1;
    return true;
  }

 private:
  static constexpr double kShare = 0.1;
  static constexpr double kSavedMax = 10;

  Mutex mutex_;
  double saved_ ATTIC_GUARDED_BY(mutex_) = kSavedMax;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_HEDGE_ALLOWANCE_H_
