// What a watch has reported, for tests that wait for it.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_ETCD_EVENT_LOG_H_
#define ATTIC_TESTS_UNIT_CLUSTER_ETCD_EVENT_LOG_H_

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/cluster/etcd/etcd_types.h"

namespace attic {

// Thread-safe. Waits end after half a minute, whatever has come.
class EventLog {
 public:
  EtcdWatchHandler Handler() {
    return {.on_events =
                [this](std::span<const EtcdEvent> events) {
                  MutexLock lock(mutex_);
                  events_.insert(events_.end(), events.begin(), events.end());
                  changed_.NotifyAll();
                },
            .on_end =
                [this](const absl::Status& status) {
                  MutexLock lock(mutex_);
                  end_ = status;
                  changed_.NotifyAll();
                }};
  }

  // Those that have come when there are `count`, or no more will come.
  std::vector<EtcdEvent> WaitForEvents(size_t count) {
    MutexLock lock(mutex_);
    Wait([&] { return events_.size() >= count || !end_.ok(); });
    return events_;
  }
  // OK when the watch goes on.
  absl::Status WaitForEnd() {
    MutexLock lock(mutex_);
    Wait([&] { return !end_.ok(); });
    return end_;
  }
  absl::Status end() {
    MutexLock lock(mutex_);
    return end_;
  }

 private:
  void Wait(const std::function<bool()>& done) ATTIC_REQUIRES(mutex_) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      changed_.WaitFor(mutex_, deadline - std::chrono::steady_clock::now());
    }
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<EtcdEvent> events_ ATTIC_GUARDED_BY(mutex_);
  absl::Status end_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_ETCD_EVENT_LOG_H_
