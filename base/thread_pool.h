// A fixed set of threads for short computations.
#ifndef ATTIC_BASE_THREAD_POOL_H_
#define ATTIC_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace attic {

// Makes the calling thread one of Priority::kBackground (below), for good.
void RunInBackground();

class ThreadPool {
 public:
  enum class Placement : uint8_t {
    kAnywhere,  // the kernel moves threads as it likes
    // Thread i stays on the i'th processor this process may use, modulo their number. As kAnywhere
    // with fewer threads than processors: other processes would crowd the same first ones.
    kOnePerCpu,
  };

  enum class Priority : uint8_t {
    kNormal,
    kBackground,  // the kernel prefers other threads of the process while processors are short
  };

  // threads == 0 means one per hardware thread. The threads start at once.
  //
  // With kOnePerCpu a scheduled task goes to a thread on the caller's processor while one is free
  // there, a helper of ParallelFor to one elsewhere. Left to the kernel, a helper for work of a
  // millisecond may be queued behind the very thread that called it, because the other processor
  // was busy for an instant.
  explicit ThreadPool(size_t threads, Placement placement = Placement::kAnywhere,
                      Priority priority = Priority::kNormal);
  // Finishes the tasks already queued, then joins.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t thread_count() const { return threads_.size(); }

  // Queues `task`; it runs on one of the pool's threads. Thread-safe.
  void Schedule(std::function<void()> task);

  // Runs body(i) for every i in [0, count), the calling thread helping, and returns when all are
  // done. Safe to call from several threads at once, from inside a task, and from inside a body:
  // the caller works through its own items, so there is no deadlock, and while it waits for others'
  // it takes items of the loops inside those. count <= 1 runs in the caller alone.
  void ParallelFor(size_t count, const std::function<void(size_t)>& body);

 private:
  class Loop;
  struct Worker {
    int cpu = -1;  // -1: anywhere
    CondVar wake;
  };

  void Run(size_t index, Priority priority);
  // Takes an idle thread off the list, preferably one on processor `cpu`, or not there if not
  // `same`; null when all are busy.
  Worker* TakeIdle(int cpu, bool same) ATTIC_REQUIRES(mutex_);
  void Open(const std::shared_ptr<Loop>& loop);
  // To be called when all items are taken, by whoever notices.
  void Close(const std::shared_ptr<Loop>& loop);
  // An open loop inside a body of `loop`; null when there is none.
  std::shared_ptr<Loop> ChildOf(const Loop& loop);
  void WaitFor(Loop& loop);

  Mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;  // constant after construction
  std::vector<size_t> idle_ ATTIC_GUARDED_BY(mutex_);
  std::deque<std::function<void()>> tasks_ ATTIC_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Loop>> loops_ ATTIC_GUARDED_BY(mutex_);  // with items to take
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace attic

#endif  // ATTIC_BASE_THREAD_POOL_H_
