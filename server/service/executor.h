// Threads that compute answers, so that gRPC's own threads only move messages.
#ifndef ATTIC_SERVER_SERVICE_EXECUTOR_H_
#define ATTIC_SERVER_SERVICE_EXECUTOR_H_

#include <atomic>
#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "base/thread_pool.h"

namespace attic {

// A thread pool with a bounded queue. Thread-safe.
class Executor {
 public:
  // threads == 0: one per hardware thread.
  Executor(size_t threads, size_t queued_max) : queued_max_(queued_max), pool_(threads) {}

  // Queues `task`; RESOURCE_EXHAUSTED naming requests_queued_max when too many wait.
  absl::Status Schedule(std::function<void()> task);

 private:
  const size_t queued_max_;
  std::atomic<size_t> queued_{0};
  // Last: its destructor finishes the tasks, which count down queued_.
  ThreadPool pool_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_EXECUTOR_H_
