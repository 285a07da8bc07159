#include "client/cpp/cluster/node_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

namespace attic {
namespace {

using Outcome = NodeLoad::Outcome;

constexpr absl::Time kNow = absl::UnixEpoch();

void Finish(NodeLoad& load, absl::Duration latency, Outcome outcome, absl::Time now = kNow) {
  load.Started(1);
  load.Finished(1, latency, outcome, now);
}

TEST(NodeLoadTest, TheP95IsThatOfTheLatestAnswers) {
  constexpr size_t kLatest = 128;
  constexpr unsigned kSeed = 3;
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  std::lognormal_distribution<float> seconds(-5, 1);
  NodeLoad load;
  std::vector<float> all;
  for (int i = 0; i < 15; ++i) {
    all.push_back(seconds(random));
    Finish(load, absl::Seconds(all.back()), Outcome::kAnswered);
    EXPECT_EQ(load.P95(), absl::InfiniteDuration());
  }
  for (int i = 15; i < 1024; ++i) {
    all.push_back(seconds(random));
    Finish(load, absl::Seconds(all.back()), Outcome::kAnswered);
    if (all.size() % 16 != 0) continue;
    std::vector<float> latest(all.end() - static_cast<ptrdiff_t>(std::min(kLatest, all.size())),
                              all.end());
    std::sort(latest.begin(), latest.end());
    EXPECT_NEAR(absl::ToDoubleSeconds(load.P95()), latest[latest.size() * 95 / 100], 1e-6);
  }
}

// They are as long as somebody waited, which follows from the p95: it would grow by itself.
TEST(NodeLoadTest, AnswersThatWereGivenUpDoNotTeachTheP95) {
  NodeLoad load;
  for (int i = 0; i < 64; ++i) Finish(load, absl::Milliseconds(2), Outcome::kAnswered);
  const absl::Duration before = load.P95();
  for (int i = 0; i < 256; ++i) {
    Finish(load, absl::Seconds(8), Outcome::kLate);
    Finish(load, absl::Seconds(8), Outcome::kFailed);
  }
  EXPECT_EQ(load.P95(), before);
}

TEST(NodeLoadTest, ANodeThatWasLateIsAskedLessUntilThatIsLongAgo) {
  NodeLoad quick;
  NodeLoad late;
  for (NodeLoad* load : {&quick, &late}) Finish(*load, absl::Milliseconds(2), Outcome::kAnswered);
  Finish(late, absl::Seconds(1), Outcome::kLate);
  EXPECT_GT(late.Score(0, kNow), 100 * quick.Score(0, kNow));
  const absl::Time later = kNow + absl::Minutes(1);
  EXPECT_DOUBLE_EQ(late.Score(0, later), quick.Score(0, later));
}

TEST(NodeLoadTest, WhatIsInFlightCounts) {
  NodeLoad load;
  Finish(load, absl::Milliseconds(2), Outcome::kAnswered);
  const double idle = load.Score(0, kNow);
  load.Started(3);
  EXPECT_DOUBLE_EQ(load.Score(0, kNow), 4 * idle);
  EXPECT_DOUBLE_EQ(load.Score(2, kNow), 6 * idle);
}

TEST(NodeLoadTest, ANodeFailsUntilItAnswersOrForAWhile) {
  NodeLoad load;
  Finish(load, absl::Milliseconds(2), Outcome::kFailed);
  EXPECT_TRUE(load.Failing(kNow));
  EXPECT_FALSE(load.Failing(kNow + absl::Seconds(1)));
  Finish(load, absl::Milliseconds(2), Outcome::kAnswered);
  EXPECT_FALSE(load.Failing(kNow));
}

}  // namespace
}  // namespace attic
