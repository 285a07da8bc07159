// A fixed set of threads for short computations.
#ifndef ATTIC_BASE_THREAD_POOL_H_
#define ATTIC_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace attic {

class ThreadPool {
 public:
  // threads == 0 means one per hardware thread. The threads start at once.
  explicit ThreadPool(size_t threads);
  // Finishes the tasks already queued, then joins.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t thread_count() const { return threads_.size(); }

  // Queues `task`; it runs on one of the pool's threads. Thread-safe.
  void Schedule(std::function<void()> task);

  // Runs body(i) for every i in [0, count), the calling thread helping, and returns when all are
  // done. Safe to call from several threads at once, and from inside a task (the caller works
  // through its own items, so there is no deadlock). count <= 1 runs in the caller alone.
  void ParallelFor(size_t count, const std::function<void(size_t)>& body);

 private:
  void Run();

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> tasks_ ATTIC_GUARDED_BY(mutex_);
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace attic

#endif  // ATTIC_BASE_THREAD_POOL_H_
