#include "base/thread_pool.h"

#include <algorithm>
#include <utility>

namespace attic {
namespace {

// One ParallelFor: items are taken by counter, and the caller waits for the last to finish. Helpers
// that start after the items are gone find nothing to do, so the state outlives the call.
struct ParallelLoop {
  ParallelLoop(size_t count, const std::function<void(size_t)>& body) : count(count), body(body) {}

  void Work() {
    size_t finished = 0;
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      body(i);
      ++finished;
    }
    if (finished == 0) return;
    MutexLock lock(mutex);
    done += finished;
    if (done == count) all_done.NotifyAll();
  }

  const size_t count;
  const std::function<void(size_t)>&
      body;  // used only while items remain, that is, during the call
  std::atomic<size_t> next{0};
  Mutex mutex;
  CondVar all_done;
  size_t done ATTIC_GUARDED_BY(mutex) = 0;
};

}  // namespace

ThreadPool::ThreadPool(size_t threads) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Schedule(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.NotifyOne();
}

void ThreadPool::ParallelFor(size_t count, const std::function<void(size_t)>& body) {
  if (count <= 1) {
    if (count == 1) body(0);
    return;
  }
  auto loop = std::make_shared<ParallelLoop>(count, body);
  const size_t helpers = std::min(threads_.size(), count - 1);
  for (size_t i = 0; i < helpers; ++i) Schedule([loop] { loop->Work(); });
  loop->Work();
  MutexLock lock(loop->mutex);
  while (loop->done != count) loop->all_done.Wait(loop->mutex);
}

void ThreadPool::Run() {
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !stopping_) wake_.Wait(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace attic
