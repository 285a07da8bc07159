#include "base/turn.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace attic {
namespace {

TEST(TurnTest, OneHasItAtATime) {
  Turn turn;
  int inside = 0, done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const Turn::Holder holder = turn.Take();
        EXPECT_EQ(++inside, 1);
        ++done;
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 800);
}

TEST(TurnTest, WhoWaitsGivesUpAtTheDeadline) {
  Turn turn;
  Turn::Holder first = turn.Take();
  EXPECT_EQ(turn.Take(absl::Now() + absl::Milliseconds(5)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // A holder that is moved from has nothing to give back.
  Turn::Holder moved = std::move(first);
  EXPECT_FALSE(turn.Take(absl::Now()).ok());
  moved = Turn::Holder();
  EXPECT_TRUE(turn.Take(absl::Now() + absl::Seconds(5)).ok());
}

}  // namespace
}  // namespace attic
