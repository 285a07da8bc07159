#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace attic {
namespace {

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

// A third of the processor time of a normal thread, when both want it: work that keeps replicas
// whole must come to its end on a processor that queries fill.
constexpr int kBackgroundNice = 5;

}  // namespace

// On Linux the niceness is a thread's own. Best effort.
void RunInBackground() { setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kBackgroundNice); }

// One ParallelFor: items are taken by counter, and the caller waits for the last to finish. Threads
// that come after the items are gone find nothing to do, so the state outlives the call.
class ThreadPool::Loop {
 public:
  Loop(size_t count, const std::function<void(size_t)>& body)
      : count_(count), body_(body), parent_(current_) {}

  // Runs an item; false when all are taken.
  bool WorkOnce() {
    const size_t i = next_.fetch_add(1);
    if (i >= count_) return false;
    Loop* const outer = current_;
    current_ = this;
    body_(i);
    current_ = outer;
    MutexLock lock(mutex_);
    if (done_.fetch_add(1) + 1 == count_) changed_.NotifyAll();
    return true;
  }

  // The loop in whose body this one was called, which lasts as long as the call; null without one.
  Loop* parent() const { return parent_; }

  void AddChild() {
    MutexLock lock(mutex_);
    children_.fetch_add(1);
    changed_.NotifyAll();
  }
  void RemoveChild() { children_.fetch_sub(1); }

  bool done() const { return done_.load() == count_; }
  bool has_child() const { return children_.load() > 0; }

  // Returns when the loop is done or has a child. The items of a loop mostly end close together,
  // and waking a thread takes longer than that: so the caller looks for a while before it sleeps.
  void Wait() {
    const auto asleep = std::chrono::steady_clock::now() + kSpinTime;
    while (!done() && !has_child() && std::chrono::steady_clock::now() < asleep) {
      std::this_thread::yield();
    }
    MutexLock lock(mutex_);
    while (!done() && !has_child()) changed_.Wait(mutex_);
  }

 private:
  static constexpr std::chrono::microseconds kSpinTime{100};
  static thread_local Loop* current_;  // whose body this thread runs

  const size_t count_;
  const std::function<void(size_t)>& body_;  // used only while items remain: during the call
  Loop* const parent_;
  std::atomic<size_t> next_{0};
  // Both raised only with the mutex, so that no wake-up is lost.
  std::atomic<size_t> done_{0};
  std::atomic<size_t> children_{0};  // open
  Mutex mutex_;
  CondVar changed_;
};

thread_local ThreadPool::Loop* ThreadPool::Loop::current_ = nullptr;

ThreadPool::ThreadPool(size_t threads, Placement placement, Priority priority) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<int> cpus;
  if (placement == Placement::kOnePerCpu) cpus = UsableCpus();
  if (threads < cpus.size()) cpus.clear();
  for (size_t i = 0; i < threads; ++i) {
    workers_.push_back(std::make_unique<Worker>());
    if (!cpus.empty()) workers_.back()->cpu = cpus[i % cpus.size()];
  }
  threads_.reserve(threads);
  for (size_t i = 0; i < threads; ++i)
    threads_.emplace_back([this, i, priority] { Run(i, priority); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  for (const auto& worker : workers_) worker->wake.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

ThreadPool::Worker* ThreadPool::TakeIdle(int cpu, bool same) {
  if (idle_.empty()) return nullptr;
  auto chosen = std::find_if(idle_.begin(), idle_.end(),
                             [&](size_t i) { return (workers_[i]->cpu == cpu) == same; });
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
    // Whoever hands over a task is mostly done itself, and its processor is awake.
    worker = TakeIdle(cpu, true);
  }
  if (worker != nullptr) worker->wake.NotifyOne();
}

void ThreadPool::Open(const std::shared_ptr<Loop>& loop) {
  MutexLock lock(mutex_);
  loops_.push_back(loop);
  if (loop->parent() != nullptr) loop->parent()->AddChild();
}

void ThreadPool::Close(const std::shared_ptr<Loop>& loop) {
  MutexLock lock(mutex_);
  const bool open = std::erase(loops_, loop) > 0;
  if (open && loop->parent() != nullptr) loop->parent()->RemoveChild();
}

std::shared_ptr<ThreadPool::Loop> ThreadPool::ChildOf(const Loop& loop) {
  MutexLock lock(mutex_);
  const auto child = std::find_if(loops_.begin(), loops_.end(),
                                  [&](const auto& l) { return l->parent() == &loop; });
  return child == loops_.end() ? nullptr : *child;
}

void ThreadPool::WaitFor(Loop& loop) {
  while (!loop.done()) {
    // Item by item, so that what is waited for is not overlooked for long.
    const std::shared_ptr<Loop> child = loop.has_child() ? ChildOf(loop) : nullptr;
    if (child == nullptr) {
      loop.Wait();
    } else if (!child->WorkOnce()) {
      Close(child);
    }
  }
}

void ThreadPool::ParallelFor(size_t count, const std::function<void(size_t)>& body) {
  if (count <= 1) {
    if (count == 1) body(0);
    return;
  }
  const auto loop = std::make_shared<Loop>(count, body);
  Open(loop);
  const int cpu = sched_getcpu();
  for (size_t helpers = count - 1; helpers > 0; --helpers) {
    Worker* worker;
    {
      MutexLock lock(mutex_);
      worker = TakeIdle(cpu, false);
    }
    if (worker == nullptr) break;
    worker->wake.NotifyOne();
  }
  while (loop->WorkOnce()) {
  }
  Close(loop);
  WaitFor(*loop);
}

void ThreadPool::Run(size_t index, Priority priority) {
  if (priority == Priority::kBackground) RunInBackground();
  Worker& self = *workers_[index];
  if (self.cpu >= 0) StayOn(self.cpu);
  for (;;) {
    std::function<void()> task;
    std::shared_ptr<Loop> loop;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && loops_.empty() && !stopping_) {
        idle_.push_back(index);
        self.wake.Wait(mutex_);
        // Whoever woke this thread took it off the list; a spurious wake-up leaves it there.
        std::erase(idle_, index);
      }
      // What has begun goes before what waits.
      if (!loops_.empty()) {
        loop = loops_.front();
      } else if (!tasks_.empty()) {
        task = std::move(tasks_.front());
        tasks_.pop_front();
      } else {
        return;
      }
    }
    if (loop == nullptr) {
      task();
      continue;
    }
    while (loop->WorkOnce()) {
    }
    Close(loop);
  }
}

}  // namespace attic
