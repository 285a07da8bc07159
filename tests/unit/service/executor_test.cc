#include "server/service/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/thread_pool.h"

namespace attic {
namespace {

TEST(ExecutorTest, RefusesWhatDoesNotFitTheQueueAndRunsTheRest) {
  std::atomic<int> ran{0};
  {
    Mutex gate;
    std::atomic<bool> started{false};
    Executor executor(std::make_shared<ThreadPool>(1), /*queued_max=*/2);
    gate.Lock();
    ASSERT_TRUE(executor
                    .Schedule([&] {
                      started = true;
                      MutexLock wait(gate);
                      ++ran;
                    })
                    .ok());
    while (!started) {
    }
    EXPECT_TRUE(executor.Schedule([&] { ++ran; }).ok());
    EXPECT_TRUE(executor.Schedule([&] { ++ran; }).ok());
    const absl::Status refused = executor.Schedule([&] { ++ran; });
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("requests_queued_max"));
    const Executor::Load load = executor.load();
    EXPECT_EQ(load.queued, 2u);
    EXPECT_EQ(load.queued_max, 2u);
    EXPECT_EQ(load.refused, 1u);
    gate.Unlock();
  }
  EXPECT_EQ(ran, 3);
}

// The pool outlives the executor: only the executor's own tasks are waited for.
TEST(ExecutorTest, ExecutorsOfOnePoolEndOnTheirOwn) {
  const auto pool = std::make_shared<ThreadPool>(2);
  std::atomic<bool> release{false};
  std::atomic<int> ran{0};
  Executor slow(pool, 1);
  ASSERT_TRUE(slow.Schedule([&] {
                    while (!release) std::this_thread::yield();
                  })
                  .ok());
  {
    Executor fast(pool, 4);
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(fast.Schedule([&] { ++ran; }).ok());
  }
  EXPECT_EQ(ran, 4);
  release = true;
}

}  // namespace
}  // namespace attic
