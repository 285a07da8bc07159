// How long a session is kept without being used.
#ifndef ATTIC_SERVER_SESSION_LEASE_H_
#define ATTIC_SERVER_SESSION_LEASE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic {

// Runs for ttl_seconds from the last use; for ever with 0, while pinned, and before the first use.
// Thread-safe. Times come from the caller, and may come out of order: the latest counts.
class Lease {
 public:
  explicit Lease(uint32_t ttl_seconds) : ttl_(absl::Seconds(ttl_seconds)) {}

  // Notes a use; false when the lease was ended for good: the session is being closed.
  bool Renew(absl::Time now);
  // The same answer, without a use.
  bool SetPinned(bool pinned);

  // Ends the lease for good if it has run out; then true, once.
  bool EndIfOver(absl::Time now);
  // Whether EndIfOver would end it.
  bool over(absl::Time now) const;

  bool pinned() const;
  absl::Time last_use() const;
  // Zero without a lease, or after its end.
  absl::Duration left(absl::Time now) const;

 private:
  bool OverLocked(absl::Time now) const ATTIC_REQUIRES(mutex_);

  const absl::Duration ttl_;
  mutable Mutex mutex_;
  absl::Time last_use_ ATTIC_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool pinned_ ATTIC_GUARDED_BY(mutex_) = false;
  bool ended_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_LEASE_H_
