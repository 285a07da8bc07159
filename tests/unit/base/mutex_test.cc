#include "base/mutex.h"

#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace attic {
namespace {

TEST(MutexTest, ExcludesOtherThreads) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 5000; ++j) {
        MutexLock lock(mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 20000);
}

TEST(CondVarTest, HandsTurnsBetweenThreads) {
  Mutex mutex;
  CondVar changed;
  int turn = 0;
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) {
      MutexLock lock(mutex);
      while (turn % 2 == 0) changed.Wait(mutex);
      ++turn;
      changed.NotifyAll();
    }
  });
  for (int i = 0; i < 200; ++i) {
    MutexLock lock(mutex);
    while (turn % 2 == 1) changed.Wait(mutex);
    ++turn;
    changed.NotifyAll();
  }
  other.join();
  EXPECT_EQ(turn, 400);
}

TEST(CondVarTest, WaitForReturnsFalseAfterTheTimeout) {
  Mutex mutex;
  CondVar never;
  MutexLock lock(mutex);
  const auto begin = std::chrono::steady_clock::now();
  // Spurious wake-ups count as notifications, so the wait is repeated until the time has passed.
  while (never.WaitFor(mutex, std::chrono::milliseconds(20))) {
  }
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(20));
}

TEST(CondVarTest, WaitForSeesANotification) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread other([&] {
    MutexLock lock(mutex);
    ready = true;
    changed.NotifyOne();
  });
  {
    MutexLock lock(mutex);
    while (!ready) ASSERT_TRUE(changed.WaitFor(mutex, std::chrono::seconds(60)));
  }
  other.join();
}

}  // namespace
}  // namespace attic
