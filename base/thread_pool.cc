#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
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
    if (done.fetch_add(finished) + finished == count) all_done.NotifyAll();
  }

  // The items of a loop mostly end close together, and waking a thread takes longer than that: so
  // the caller looks for a while before it sleeps.
  void WaitForAll() {
    const auto asleep = std::chrono::steady_clock::now() + kSpinTime;
    while (done.load() != count && std::chrono::steady_clock::now() < asleep) {
      std::this_thread::yield();
    }
    MutexLock lock(mutex);
    while (done.load() != count) all_done.Wait(mutex);
  }

  static constexpr std::chrono::microseconds kSpinTime{100};

  const size_t count;
  const std::function<void(size_t)>&
      body;  // used only while items remain, that is, during the call
  std::atomic<size_t> next{0};
  std::atomic<size_t> done{0};  // raised only with the mutex, so that no wake-up is lost
  Mutex mutex;
  CondVar all_done;
};

std::vector<int> UsableCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// Best effort: where it is refused the kernel places the thread.
void StayOn(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

}  // namespace

ThreadPool::ThreadPool(size_t threads, Placement placement) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  const std::vector<int> cpus =
      placement == Placement::kOnePerCpu ? UsableCpus() : std::vector<int>();
  for (size_t i = 0; i < threads; ++i) {
    workers_.push_back(std::make_unique<Worker>());
    if (!cpus.empty()) workers_.back()->cpu = cpus[i % cpus.size()];
  }
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this, i] { Run(i); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  for (const auto& worker : workers_) worker->wake.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

ThreadPool::Worker* ThreadPool::TakeIdle(int cpu) {
  if (idle_.empty()) return nullptr;
  auto chosen =
      std::find_if(idle_.begin(), idle_.end(), [&](size_t i) { return workers_[i]->cpu != cpu; });
  if (chosen == idle_.end()) chosen = idle_.begin();
  Worker* const worker = workers_[*chosen].get();
  idle_.erase(chosen);
  return worker;
}

void ThreadPool::Schedule(std::function<void()> task) {
  const int cpu = sched_getcpu();
  Worker* worker;
  {
    MutexLock lock(mutex_);
    tasks_.push_back(std::move(task));
    worker = TakeIdle(cpu);
  }
  if (worker != nullptr) worker->wake.NotifyOne();
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
  loop->WaitForAll();
}

void ThreadPool::Run(size_t index) {
  Worker& self = *workers_[index];
  if (self.cpu >= 0) StayOn(self.cpu);
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !stopping_) {
        idle_.push_back(index);
        self.wake.Wait(mutex_);
        // Whoever woke this thread took it off the list; a spurious wake-up leaves it there.
        std::erase(idle_, index);
      }
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace attic
