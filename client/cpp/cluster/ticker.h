// One thread that looks after everything in a client that waits for a time to pass.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_TICKER_H_
#define ATTIC_CLIENT_CPP_CLUSTER_TICKER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/cpp/rpc.h"

namespace attic {

// Calls registered functions every kInterval, while any of them says that it has something to wait
// for. Thread-safe.
class Ticker {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(10);
  using Tick = std::function<bool()>;  // true: to be called again after kInterval

  Ticker() : thread_([this] { Run(); }) {}
  ~Ticker() {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  uint64_t Add(Tick tick) {
    MutexLock lock(mutex_);
    ticks_.emplace(++last_, std::make_shared<Tick>(std::move(tick)));
    return last_;
  }
  // When it returns the function is not running, nor will be. Not to be called by a function.
  void Remove(uint64_t id) {
    MutexLock lock(mutex_);
    ticks_.erase(id);
    while (running_ == id) changed_.Wait(mutex_);
  }
  // The functions are called soon.
  void Wake() {
    MutexLock lock(mutex_);
    if (wanted_) return;
    wanted_ = true;
    changed_.NotifyAll();
  }

 private:
  void Run() {
    MutexLock lock(mutex_);
    while (!stopping_) {
      while (!wanted_ && !stopping_) changed_.Wait(mutex_);
      const absl::Time due = absl::Now() + kInterval;
      while (!stopping_ && absl::Now() < due) changed_.WaitFor(mutex_, WaitTime(due));
      wanted_ = false;
      std::vector<uint64_t> ids;
      for (const auto& [id, tick] : ticks_) ids.push_back(id);
      for (const uint64_t id : ids) {
        if (!stopping_) RunOne(id);
      }
    }
  }
  void RunOne(uint64_t id) ATTIC_REQUIRES(mutex_) {
    const auto found = ticks_.find(id);
    if (found == ticks_.end()) return;
    const std::shared_ptr<Tick> tick = found->second;
    running_ = id;
    mutex_.Unlock();
    const bool again = (*tick)();
    mutex_.Lock();
    running_ = 0;
    wanted_ = wanted_ || again;
    changed_.NotifyAll();
  }

  Mutex mutex_;
  CondVar changed_;
  std::map<uint64_t, std::shared_ptr<Tick>> ticks_ ATTIC_GUARDED_BY(mutex_);
  uint64_t last_ ATTIC_GUARDED_BY(mutex_) = 0;
  uint64_t running_ ATTIC_GUARDED_BY(mutex_) = 0;
  bool wanted_ ATTIC_GUARDED_BY(mutex_) = false;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_TICKER_H_
