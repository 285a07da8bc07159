#include "server/session/build_scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "absl/time/clock.h"

namespace attic {
namespace {

struct BuildLog {
  Mutex mutex;
  std::vector<int> builds ATTIC_GUARDED_BY(mutex);
};

class FakeTarget : public BuildTarget {
 public:
  FakeTarget(int id, int64_t pending, BuildLog& log) : id_(id), pending_(pending), log_(log) {}

  absl::StatusOr<bool> BuildNext() override {
    EXPECT_FALSE(building_.exchange(true)) << "two threads at once";
    while (held_) absl::SleepFor(absl::Milliseconds(1));
    {
      MutexLock lock(log_.mutex);
      log_.builds.push_back(id_);
    }
    building_ = false;
    if (failures_ > 0) {
      --failures_;
      return absl::ResourceExhaustedError("no memory");
    }
    if (pending_ == 0) return false;
    --pending_;
    return true;
  }
  int64_t pending_segments() const override { return pending_; }

  const int id_;
  std::atomic<int64_t> pending_;
  std::atomic<int> failures_{0};
  std::atomic<bool> held_{false};
  std::atomic<bool> building_{false};
  BuildLog& log_;
};

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

TEST(BuildSchedulerTest, HeadsTakeTurns) {
  BuildLog log;
  BuildScheduler scheduler(1);
  auto gate = std::make_shared<FakeTarget>(0, 1, log);
  gate->held_ = true;
  auto a = std::make_shared<FakeTarget>(1, 3, log);
  auto b = std::make_shared<FakeTarget>(2, 3, log);
  scheduler.Schedule(gate);
  scheduler.Schedule(a);
  scheduler.Schedule(b);
  scheduler.Schedule(a);  // queued already
  gate->held_ = false;
  ASSERT_TRUE(scheduler.WaitUntilIdle(Soon()).ok());
  MutexLock lock(log.mutex);
  EXPECT_EQ(log.builds, (std::vector<int>{0, 1, 2, 1, 2, 1, 2}));
}

TEST(BuildSchedulerTest, WaitsEndAtTheirDeadline) {
  BuildLog log;
  BuildScheduler scheduler(1);
  auto target = std::make_shared<FakeTarget>(0, 2, log);
  target->held_ = true;
  scheduler.Schedule(target);
  EXPECT_TRUE(absl::IsDeadlineExceeded(scheduler.WaitUntilIdle(absl::Now())));
  const auto has_room = [&] { return target->pending_segments() == 0; };
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      scheduler.WaitForRoom(has_room, absl::Now() + absl::Milliseconds(20))));
  target->held_ = false;
  EXPECT_TRUE(scheduler.WaitForRoom(has_room, Soon()).ok());
}

TEST(BuildSchedulerTest, AFailedBuildIsTriedAgainLater) {
  BuildLog log;
  BuildScheduler scheduler(1, absl::Milliseconds(30));
  auto target = std::make_shared<FakeTarget>(0, 2, log);
  target->failures_ = 1;
  scheduler.Schedule(target);
  ASSERT_TRUE(scheduler.WaitUntilIdle(Soon()).ok());
  EXPECT_EQ(target->pending_segments(), 2);
  EXPECT_TRUE(absl::IsResourceExhausted(scheduler.last_error()));
  scheduler.Schedule(target);  // too soon
  ASSERT_TRUE(scheduler.WaitUntilIdle(Soon()).ok());
  EXPECT_EQ(target->pending_segments(), 2);
  absl::SleepFor(absl::Milliseconds(40));
  scheduler.Schedule(target);
  ASSERT_TRUE(scheduler.WaitUntilIdle(Soon()).ok());
  EXPECT_EQ(target->pending_segments(), 0);
}

TEST(BuildSchedulerTest, ForgetsTargetsNobodyHolds) {
  BuildLog log;
  BuildScheduler scheduler(1);
  auto gate = std::make_shared<FakeTarget>(0, 1, log);
  gate->held_ = true;
  scheduler.Schedule(gate);
  scheduler.Schedule(std::make_shared<FakeTarget>(1, 3, log));
  gate->held_ = false;
  ASSERT_TRUE(scheduler.WaitUntilIdle(Soon()).ok());
  MutexLock lock(log.mutex);
  EXPECT_EQ(log.builds, std::vector<int>{0});
}

TEST(BuildSchedulerTest, ManyThreadsBuildEachTargetOneAtATime) {
  BuildLog log;
  std::vector<std::shared_ptr<FakeTarget>> targets;
  for (int i = 0; i < 5; ++i) targets.push_back(std::make_shared<FakeTarget>(i, 50, log));
  BuildScheduler scheduler(4);
  for (int round = 0; round < 50; ++round) {
    for (const auto& target : targets) scheduler.Schedule(target);
  }
  ASSERT_TRUE(scheduler.WaitUntilIdle(Soon()).ok());
  for (const auto& target : targets) EXPECT_EQ(target->pending_segments(), 0);
}

}  // namespace
}  // namespace attic
