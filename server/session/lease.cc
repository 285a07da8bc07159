#include "server/session/lease.h"

#include <algorithm>

namespace attic {

bool Lease::Renew(absl::Time now) {
  MutexLock lock(mutex_);
  last_use_ = std::max(last_use_, now);
  return !ended_;
}

bool Lease::SetPinned(bool pinned) {
  MutexLock lock(mutex_);
  pinned_ = pinned;
  return !ended_;
}

bool Lease::OverLocked(absl::Time now) const {
  return !ended_ && !pinned_ && ttl_ > absl::ZeroDuration() && last_use_ > absl::InfinitePast() &&
         now - last_use_ >= ttl_;
}

bool Lease::EndIfOver(absl::Time now) {
  MutexLock lock(mutex_);
  if (!OverLocked(now)) return false;
  ended_ = true;
  return true;
}

bool Lease::over(absl::Time now) const {
  MutexLock lock(mutex_);
  return OverLocked(now);
}

bool Lease::pinned() const {
  MutexLock lock(mutex_);
  return pinned_;
}

absl::Time Lease::last_use() const {
  MutexLock lock(mutex_);
  return last_use_;
}

absl::Duration Lease::left(absl::Time now) const {
  MutexLock lock(mutex_);
  if (ended_ || ttl_ == absl::ZeroDuration()) return absl::ZeroDuration();
  return std::clamp(last_use_ + ttl_ - now, absl::ZeroDuration(), ttl_);
}

}  // namespace attic
