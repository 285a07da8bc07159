// Threads that compute answers, so that gRPC's own threads only move messages.
#ifndef ATTIC_SERVER_SERVICE_EXECUTOR_H_
#define ATTIC_SERVER_SERVICE_EXECUTOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "base/thread_pool.h"

namespace attic {

// A bounded queue before a thread pool. Thread-safe.
class Executor {
 public:
  Executor(std::shared_ptr<ThreadPool> pool, size_t queued_max)
      : queued_max_(queued_max), pool_(std::move(pool)) {}
  // Waits for the tasks already queued.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Queues `task`; RESOURCE_EXHAUSTED naming requests_queued_max when too many wait.
  absl::Status Schedule(std::function<void()> task);

  struct Load {
    size_t queued = 0;  // tasks that wait for a thread
    size_t queued_max = 0;
    uint64_t refused = 0;  // tasks that did not fit, since the start
  };
  Load load();

 private:
  void Run(const std::function<void()>& task);

  const size_t queued_max_;
  const std::shared_ptr<ThreadPool> pool_;
  Mutex mutex_;
  CondVar idle_;
  size_t queued_ ATTIC_GUARDED_BY(mutex_) = 0;
  uint64_t refused_ ATTIC_GUARDED_BY(mutex_) = 0;
  size_t unfinished_ ATTIC_GUARDED_BY(mutex_) = 0;  // queued or running
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_EXECUTOR_H_
