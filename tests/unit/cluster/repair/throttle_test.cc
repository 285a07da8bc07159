#include "server/cluster/repair/throttle.h"

#include <gtest/gtest.h>

#include "tests/unit/cluster/repair/fake_node.h"

namespace attic {
namespace {

TEST(ThrottleTest, KeepsToTheRateAndSavesNothingUp) {
  FakeClock clock;
  Throttle throttle(
      100, [&] { return clock.Now(); },
      [&](absl::Time time) {
        clock.AdvanceTo(time);
        return true;
      });
  const absl::Time begin = clock.Now();
  ASSERT_TRUE(throttle.Take(50).ok());
  EXPECT_EQ(clock.Now(), begin);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(throttle.Take(50).ok());
  EXPECT_EQ(clock.Now() - begin, absl::Seconds(5));
  clock.Advance(absl::Hours(1));
  const absl::Time later = clock.Now();
  for (int i = 0; i < 11; ++i) ASSERT_TRUE(throttle.Take(50).ok());
  EXPECT_EQ(clock.Now() - later, absl::Seconds(5));
}

TEST(ThrottleTest, EndsWhenWaitingDoes) {
  FakeClock clock;
  Throttle throttle(
      100, [&] { return clock.Now(); }, [](absl::Time) { return false; });
  ASSERT_TRUE(throttle.Take(1000).ok());
  EXPECT_TRUE(absl::IsCancelled(throttle.Take(1)));
  Throttle none(
      0, [&] { return clock.Now(); }, [](absl::Time) { return false; });
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(none.Take(1u << 30).ok());
}

}  // namespace
}  // namespace attic
