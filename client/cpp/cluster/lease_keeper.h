// Keeps the leases of sessions that a client uses from ending: reads and writes renew those of the
// shards they touch, on the replicas they touch, and never the manifest's.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_LEASE_KEEPER_H_
#define ATTIC_CLIENT_CPP_CLUSTER_LEASE_KEEPER_H_

#include <thread>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/cpp/cluster/cluster_core.h"
#include "client/cpp/cluster/cluster_sessions.h"
#include "client/cpp/rpc.h"

namespace attic {

// While it lives, sessions used within their time to live are renewed every third of it. Nobody
// uses a session longer than that: it ends as it would with one store.
class LeaseKeeper {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(300);

  LeaseKeeper(ClusterCore& core, ClusterSessions& sessions)
      : core_(core), sessions_(sessions), thread_([this] { Run(); }) {}
  ~LeaseKeeper() {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      wake_.NotifyAll();
    }
    thread_.join();
  }
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

 private:
  // False when the thread is to end.
  bool Wait() {
    const absl::Time due = absl::Now() + kInterval;
    MutexLock lock(mutex_);
    while (!stopping_ && absl::Now() < due) wake_.WaitFor(mutex_, WaitTime(due));
    return !stopping_;
  }
  void Run() {
    while (Wait()) {
      for (const auto& info : core_.cache.TakeDueLeases(absl::Now())) {
        const absl::Duration third = absl::Seconds(info->ttl_seconds) / 3;
        // What fails is tried again at the next third.
        sessions_.RenewShards(*info, absl::Now() + third).IgnoreError();
      }
    }
  }

  ClusterCore& core_;
  ClusterSessions& sessions_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_LEASE_KEEPER_H_
