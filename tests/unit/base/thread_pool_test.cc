#include "base/thread_pool.h"

#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "gtest/gtest.h"

namespace attic {
namespace {

TEST(ThreadPoolTest, ZeroMeansOnePerHardwareThread) {
  ThreadPool pool(0);
  EXPECT_GE(pool.thread_count(), 1u);
  ThreadPool three(3);
  EXPECT_EQ(three.thread_count(), 3u);
}

TEST(ThreadPoolTest, ParallelForRunsEveryItemOnce) {
  ThreadPool pool(3);
  for (const size_t count : {0, 1, 2, 3, 10, 1000}) {
    std::vector<int> runs(count, 0);  // an item's own element: a second run would be a race
    pool.ParallelFor(count, [&](size_t i) { ++runs[i]; });
    EXPECT_EQ(runs, std::vector<int>(count, 1));
  }
}

TEST(ThreadPoolTest, OneItemRunsInTheCaller) {
  ThreadPool pool(2);
  std::thread::id ran_on;
  pool.ParallelFor(1, [&](size_t) { ran_on = std::this_thread::get_id(); });
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

// Items that wait for each other finish only when they run at the same time.
TEST(ThreadPoolTest, ItemsRunAtTheSameTime) {
  ThreadPool pool(3);
  std::atomic<int> arrived{0};
  pool.ParallelFor(4, [&](size_t) {
    arrived.fetch_add(1);
    while (arrived.load() < 4) std::this_thread::yield();
  });
  EXPECT_EQ(arrived.load(), 4);
}

TEST(ThreadPoolTest, NestedLoopsDoNotDeadlock) {
  ThreadPool pool(2);
  std::atomic<int> sum{0};
  pool.ParallelFor(8, [&](size_t) {
    pool.ParallelFor(8, [&](size_t) {
      pool.ParallelFor(4, [&](size_t i) { sum.fetch_add(static_cast<int>(i)); });
    });
  });
  EXPECT_EQ(sum.load(), 8 * 8 * (0 + 1 + 2 + 3));
}

// The caller's own item ends at once; without its help the other item's two would wait forever.
TEST(ThreadPoolTest, AWaitingCallerTakesItemsOfTheLoopsInside) {
  ThreadPool pool(1);
  std::atomic<bool> started{false};
  std::atomic<int> arrived{0};
  const std::thread::id caller = std::this_thread::get_id();
  pool.ParallelFor(2, [&](size_t) {
    if (std::this_thread::get_id() == caller) {
      while (!started.load()) std::this_thread::yield();
      return;
    }
    started.store(true);
    pool.ParallelFor(2, [&](size_t) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
  });
  EXPECT_EQ(arrived.load(), 2);
}

TEST(ThreadPoolTest, LoopsFromSeveralThreadsDoNotMix) {
  ThreadPool pool(2);
  constexpr size_t kItems = 64;
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&pool, &wrong, caller] {
      for (int round = 0; round < 50; ++round) {
        std::vector<int> out(kItems, -1);
        pool.ParallelFor(kItems, [&](size_t i) { out[i] = caller; });
        for (const int value : out) wrong.fetch_add(value != caller);
      }
    });
  }
  for (std::thread& thread : callers) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(ThreadPoolTest, LoopInsideATaskOfAFullPool) {
  ThreadPool pool(1);
  Mutex mutex;
  CondVar finished;
  int sum = 0;
  bool done = false;
  pool.Schedule([&] {
    std::atomic<int> inner{0};
    pool.ParallelFor(100, [&](size_t i) { inner.fetch_add(static_cast<int>(i)); });
    MutexLock lock(mutex);
    sum = inner.load();
    done = true;
    finished.NotifyAll();
  });
  MutexLock lock(mutex);
  while (!done) finished.Wait(mutex);
  EXPECT_EQ(sum, 4950);
}

// Every thread is asked for its processors; more threads than processors share them in turn.
TEST(ThreadPoolTest, OnePerCpuKeepsEveryThreadOnOneProcessor) {
  constexpr size_t kThreads = 5;
  ThreadPool pool(kThreads, ThreadPool::Placement::kOnePerCpu);
  cpu_set_t usable;
  ASSERT_EQ(sched_getaffinity(0, sizeof(usable), &usable), 0);
  std::atomic<size_t> arrived{0}, kept{0}, done{0};
  for (size_t i = 0; i < kThreads; ++i) {
    pool.Schedule([&] {
      arrived.fetch_add(1);
      while (arrived.load() < kThreads) std::this_thread::yield();  // so all threads take part
      cpu_set_t own;
      const bool read = sched_getaffinity(0, sizeof(own), &own) == 0;
      CPU_AND(&own, &own, &usable);
      kept.fetch_add(read && CPU_COUNT(&own) == 1);
      done.fetch_add(1);
    });
  }
  while (done.load() < kThreads) std::this_thread::yield();
  EXPECT_EQ(kept.load(), kThreads);
  std::vector<int> runs(100, 0);
  pool.ParallelFor(runs.size(), [&](size_t i) { ++runs[i]; });
  EXPECT_EQ(runs, std::vector<int>(100, 1));
}

TEST(ThreadPoolTest, FewerThreadsThanProcessorsStayNowhere) {
  cpu_set_t usable;
  ASSERT_EQ(sched_getaffinity(0, sizeof(usable), &usable), 0);
  if (CPU_COUNT(&usable) < 2) GTEST_SKIP() << "one processor";
  cpu_set_t own;
  {
    ThreadPool pool(1, ThreadPool::Placement::kOnePerCpu);
    pool.Schedule([&] { ASSERT_EQ(sched_getaffinity(0, sizeof(own), &own), 0); });
  }
  EXPECT_TRUE(CPU_EQUAL(&own, &usable));
}

TEST(ThreadPoolTest, BackgroundThreadsGiveWayToOthers) {
  const int own = getpriority(PRIO_PROCESS, 0);
  std::atomic<int> normal{0}, background{0};
  {
    ThreadPool pool(1);
    ThreadPool later(1, ThreadPool::Placement::kAnywhere, ThreadPool::Priority::kBackground);
    pool.Schedule([&] { normal = getpriority(PRIO_PROCESS, 0); });
    later.Schedule([&] { background = getpriority(PRIO_PROCESS, 0); });
  }
  EXPECT_EQ(normal.load(), own);
  EXPECT_GT(background.load(), own);
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), own);
}

TEST(ThreadPoolTest, DestructorFinishesQueuedTasks) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool(2);
    for (int i = 0; i < 500; ++i) {
      pool.Schedule([&ran, &pool] {
        ran.fetch_add(1);
        if (ran.load() == 1) pool.Schedule([&ran] { ran.fetch_add(1000); });
      });
    }
  }
  EXPECT_GE(ran.load(), 500);
}

}  // namespace
}  // namespace attic
