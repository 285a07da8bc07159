#include "server/session/lease.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace attic {
namespace {

const absl::Time kStart = absl::UnixEpoch();
absl::Time At(int seconds) { return kStart + absl::Seconds(seconds); }

TEST(LeaseTest, RunsFromTheLastUse) {
  Lease lease(10);
  ASSERT_TRUE(lease.Renew(At(0)));
  EXPECT_EQ(lease.left(At(4)), absl::Seconds(6));
  ASSERT_TRUE(lease.Renew(At(5)));
  ASSERT_TRUE(lease.Renew(At(3)));  // a slower thread's
  EXPECT_EQ(lease.last_use(), At(5));
  EXPECT_FALSE(lease.over(At(14)));
  EXPECT_FALSE(lease.EndIfOver(At(14)));
  EXPECT_TRUE(lease.over(At(15)));
  EXPECT_EQ(lease.left(At(15)), absl::ZeroDuration());
  EXPECT_TRUE(lease.EndIfOver(At(15)));
  // Ended for good.
  EXPECT_FALSE(lease.EndIfOver(At(20)));
  EXPECT_FALSE(lease.Renew(At(20)));
  EXPECT_FALSE(lease.SetPinned(true));
}

TEST(LeaseTest, NeverEndsWithoutTimeOrWhilePinned) {
  Lease none(0);
  ASSERT_TRUE(none.Renew(At(0)));
  EXPECT_FALSE(none.EndIfOver(absl::InfiniteFuture()));
  EXPECT_EQ(none.left(At(1)), absl::ZeroDuration());

  Lease pinned(1);
  ASSERT_TRUE(pinned.Renew(At(0)));
  ASSERT_TRUE(pinned.SetPinned(true));
  EXPECT_FALSE(pinned.EndIfOver(At(100)));
  ASSERT_TRUE(pinned.SetPinned(false));
  EXPECT_TRUE(pinned.EndIfOver(At(100)));
}

// Whoever is told that the lease goes on can rely on it: once it ended nobody is told so.
TEST(LeaseTest, EndsOnceAmongThreads) {
  for (int round = 0; round < 100; ++round) {
    Lease lease(1);
    ASSERT_TRUE(lease.Renew(At(0)));
    std::atomic<int> ended{0};
    std::atomic<bool> renewed_after_end{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        const bool was_over = ended > 0;
        if (lease.EndIfOver(At(5))) ++ended;
        if (was_over && lease.Renew(At(6))) renewed_after_end = true;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(ended, 1);
    EXPECT_FALSE(renewed_after_end);
    EXPECT_FALSE(lease.Renew(At(7)));
  }
}

}  // namespace
}  // namespace attic
