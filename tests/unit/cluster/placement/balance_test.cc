#include "server/cluster/placement/balance.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"

namespace attic {
namespace {

// Two replicas, three nodes; a share of 10 first replicas and 20 of both for each.
Balance Even(double imbalance_max) {
  return Balance({{{10, 10, 10}, {20, 20, 20}, {0, 0, 0}}}, 2, imbalance_max);
}

TEST(BalanceTest, BoundsAreOfWholeSlots) {
  Balance balance = Even(0.10);
  for (int i = 0; i < 9; ++i) balance.Add(0, 0);
  for (int i = 0; i < 9; ++i) balance.Add(0, 1);
  EXPECT_EQ(balance.Excess(0), 0);
  balance.Remove(0, 1);
  EXPECT_DOUBLE_EQ(balance.Excess(0), -1.0 / 20);
  balance.Add(0, 0);
  balance.Add(0, 0);
  EXPECT_EQ(balance.Excess(0), 0);
  balance.Add(0, 0);
  EXPECT_DOUBLE_EQ(balance.Excess(0), 1.0 / 10);
}

TEST(BalanceTest, RoomIsUpToTheShareAtAllLaterRanks) {
  Balance balance = Even(0.10);
  for (int i = 0; i < 10; ++i) balance.Add(1, 0);
  EXPECT_FALSE(balance.HasRoom(1, 0));
  EXPECT_TRUE(balance.HasRoom(1, 1));
  for (int i = 0; i < 10; ++i) balance.Add(1, 1);
  EXPECT_FALSE(balance.HasRoom(1, 1));
  balance.Remove(1, 0);
  EXPECT_TRUE(balance.HasRoom(1, 0));
}

// What a move promises is what it does to the sum of penalties, however moves are combined.
TEST(BalanceTest, GainsAndCostsAddUp) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    Balance balance = Even(0.10);
    for (int i = 0; i < 60; ++i) balance.Add(random() % 3, random() % 2);
    const uint32_t node = static_cast<uint32_t>(random() % 3);
    const double cost = balance.CostOfAdding(node, 1);
    const double raising = balance.CostOfRaising(node, 1, 0);
    const double both = balance.CostOfAdding(node, 0);
    EXPECT_NEAR(cost + raising, both, 1e-9);
    balance.Add(node, 0);
    EXPECT_NEAR(balance.GainOfRemoving(node, 0), both, 1e-9);
    EXPECT_NEAR(balance.GainOfLowering(node, 0, 1), raising, 1e-9);
  }
}

}  // namespace
}  // namespace attic
