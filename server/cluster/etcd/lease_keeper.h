// A lease that is kept alive, and replaced when it was lost.
#ifndef ATTIC_SERVER_CLUSTER_ETCD_LEASE_KEEPER_H_
#define ATTIC_SERVER_CLUSTER_ETCD_LEASE_KEEPER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/etcd/etcd_client.h"

namespace attic {

// Both are called on the keeper's thread without locks held, and must not destroy the keeper.
struct LeaseKeeperHandler {
  // A new lease is held: puts the owner's keys under it. Called again, about once a second, until
  // it returns OK or the lease is lost. Should take a fraction of the lease's time: meanwhile
  // nobody keeps it alive.
  std::function<absl::Status(int64_t lease)> on_granted;
  // The lease is no longer held for certain. Not called for Release and the destructor.
  std::function<void(int64_t lease)> on_lost;
};

// Thread-safe. Has a thread of its own that takes a lease, keeps it alive three times in its time,
// and takes another when it is lost: when etcd says so, or when its time has passed by the
// monotonic clock of this machine since the last successful keepalive was sent. The latter is never
// later than etcd's own end of the lease, as long as the clocks of both run equally fast. A lost
// lease that etcd still has is revoked before another is taken.
class LeaseKeeper {
 public:
  // `client` must outlive the keeper. `ttl` as in EtcdClient::GrantLease.
  LeaseKeeper(EtcdClient& client, absl::Duration ttl, LeaseKeeperHandler handler);
  // Stops keeping the lease, which then ends by itself. Waits for a call to etcd or a handler that
  // is running.
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  // The lease that is held at this moment, also if its keys have not been put yet; 0 if there is
  // none. Becomes 0 on time, even while the keeper's thread waits for etcd.
  int64_t lease() const;

  // Has etcd asked for the lease at once, or, if there is none, for a new one. Does not wait.
  void AskNow();

  // OK, or why the last call to etcd or of on_granted failed.
  absl::Status last_status() const;
  // How many of them failed.
  uint64_t failures() const;

  // Stops, and revokes the lease, so that its keys go at once. An error means that they go when the
  // lease ends. For one caller, once.
  absl::Status Release();

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  bool Acquire();
  void KeepUntilLost();
  // Returns early after AskNow. False when the keeper is to stop.
  bool WaitUntil(Clock::time_point due) ATTIC_EXCLUDES(mutex_);
  void SetHeld(int64_t lease, Clock::time_point until) ATTIC_EXCLUDES(mutex_);
  void SetStatus(const absl::Status& status) ATTIC_EXCLUDES(mutex_);
  void Stop() ATTIC_EXCLUDES(mutex_);

  EtcdClient& client_;
  const absl::Duration ttl_;
  const LeaseKeeperHandler handler_;

  int64_t abandoned_lease_ = 0;  // lost, and perhaps still in etcd; the thread's

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  bool ask_now_ ATTIC_GUARDED_BY(mutex_) = false;
  int64_t lease_ ATTIC_GUARDED_BY(mutex_) = 0;  // 0: none
  Clock::time_point held_until_ ATTIC_GUARDED_BY(mutex_);
  absl::Status last_status_ ATTIC_GUARDED_BY(mutex_);
  uint64_t failures_ ATTIC_GUARDED_BY(mutex_) = 0;

  std::thread thread_;  // last: it uses the members above
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_ETCD_LEASE_KEEPER_H_
