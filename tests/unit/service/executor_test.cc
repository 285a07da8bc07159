#include "server/service/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "base/mutex.h"

namespace attic {
namespace {

TEST(ExecutorTest, RefusesWhatDoesNotFitTheQueueAndRunsTheRest) {
  std::atomic<int> ran{0};
  {
    Mutex gate;
    std::atomic<bool> started{false};
    Executor executor(1, /*queued_max=*/2);
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
    gate.Unlock();
  }
  EXPECT_EQ(ran, 3);
}

}  // namespace
}  // namespace attic
