#include "server/cluster/repair/shard_changes.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/cluster/repair/fake_node.h"

namespace attic {
namespace {

class ShardChangesTest : public testing::Test {
 protected:
  FakeClock clock_;
  ShardChanges changes_{absl::Seconds(2), [this] { return clock_.Now(); }};
};

TEST_F(ShardChangesTest, AChangeEndsWhatIsUnderWayAndKeepsRepairAwayForAWhile) {
  const auto nothing = [] { return absl::OkStatus(); };
  ShardChanges::Watch other(changes_, "other");
  {
    ShardChanges::Watch watch(changes_, "s");
    EXPECT_TRUE(watch.Apply(nothing).ok());
    { ShardChanges::Change change(changes_, {"s", "t", "s"}); }
    EXPECT_TRUE(absl::IsAborted(watch.Check()));
    EXPECT_TRUE(absl::IsAborted(watch.Apply(nothing)));
  }
  EXPECT_TRUE(other.Apply(nothing).ok());
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(absl::IsAborted(ShardChanges::Watch(changes_, "s").Check()));
  EXPECT_TRUE(absl::IsAborted(ShardChanges::Watch(changes_, "t").Apply(nothing)));
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(ShardChanges::Watch(changes_, "s").Check().ok());
  ShardChanges::Change change(changes_, {"s"});
  EXPECT_TRUE(absl::IsAborted(ShardChanges::Watch(changes_, "s").Check()));
}

TEST_F(ShardChangesTest, NoStepRunsDuringAChange) {
  std::atomic<int> inside{0};
  std::atomic<bool> stop{false};
  std::thread caller([&] {
    for (int i = 0; i < 2000; ++i) {
      ShardChanges::Change change(changes_, {"s"});
      EXPECT_EQ(inside.fetch_add(1), 0);
      inside.fetch_sub(1);
    }
    stop = true;
  });
  uint64_t steps = 0;
  while (!stop) {
    clock_.Advance(absl::Seconds(3));
    ShardChanges::Watch watch(changes_, "s");
    const absl::Status status = watch.Apply([&] {
      EXPECT_EQ(inside.fetch_add(1), 0);
      inside.fetch_sub(1);
      return absl::OkStatus();
    });
    if (status.ok()) ++steps;
  }
  caller.join();
  clock_.Advance(absl::Seconds(3));
  EXPECT_TRUE(ShardChanges::Watch(changes_, "s").Check().ok()) << steps;
}

TEST_F(ShardChangesTest, ManyShardsAreForgotten) {
  for (int i = 0; i < 20000; ++i) {
    clock_.Advance(absl::Milliseconds(10));
    ShardChanges::Change change(changes_, {std::to_string(i)});
  }
  EXPECT_TRUE(ShardChanges::Watch(changes_, "0").Check().ok());
  EXPECT_TRUE(absl::IsAborted(ShardChanges::Watch(changes_, "19999").Check()));
}

}  // namespace
}  // namespace attic
