// A thread that does the same thing again and again.
#ifndef ATTIC_SERVER_SESSION_PERIODIC_THREAD_H_
#define ATTIC_SERVER_SESSION_PERIODIC_THREAD_H_

#include <algorithm>
#include <functional>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic {

// Calls `body` every `interval`, first after one, until destroyed; a call under way is finished.
class PeriodicThread {
 public:
  PeriodicThread(absl::Duration interval, std::function<void()> body)
      : interval_(interval), body_(std::move(body)), thread_([this] { Run(); }) {}
  ~PeriodicThread() {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      wake_.NotifyAll();
    }
    thread_.join();
  }
  PeriodicThread(const PeriodicThread&) = delete;
  PeriodicThread& operator=(const PeriodicThread&) = delete;

 private:
  // False when the thread is to end.
  bool Wait() {
    const absl::Time due = absl::Now() + interval_;
    MutexLock lock(mutex_);
    while (!stopping_) {
      const absl::Duration left = due - absl::Now();
      if (left <= absl::ZeroDuration()) return true;
      wake_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
    }
    return false;
  }
  void Run() {
    while (Wait()) body_();
  }

  const absl::Duration interval_;
  const std::function<void()> body_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_PERIODIC_THREAD_H_
