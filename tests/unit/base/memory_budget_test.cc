#include "base/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace attic {
namespace {

TEST(MemoryBudgetTest, RefusesWhatIsOverTheLimitAndCountsNothing) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.Reserve(60).ok());
  const absl::Status refused = budget.Reserve(41);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("memory_bytes_max"));
  EXPECT_EQ(budget.used_bytes(), 60u);
  EXPECT_TRUE(budget.Reserve(40).ok());
  EXPECT_FALSE(budget.Reserve(UINT64_MAX).ok());
}

TEST(MemoryBudgetTest, MemoryInUseMayGoOverTheLimit) {
  MemoryBudget budget(100);
  budget.Adjust(0, 150);
  EXPECT_EQ(budget.used_bytes(), 150u);
  EXPECT_FALSE(budget.Reserve(1).ok());
  budget.Adjust(150, 10);
  EXPECT_TRUE(budget.Reserve(90).ok());
}

TEST(MemoryBudgetTest, DefaultIsPartOfTheMachine) {
  EXPECT_GT(MemoryBudget(0).bytes_max(), uint64_t{64} << 20);
}

TEST(MemoryChargeTest, LastsAsLongAsTheObject) {
  const auto budget = std::make_shared<MemoryBudget>(100);
  {
    MemoryCharge charge(budget);
    EXPECT_TRUE(charge.Reserve(30).ok());
    charge.Set(70);
    EXPECT_EQ(budget->used_bytes(), 70u);
    MemoryCharge other(budget);
    EXPECT_FALSE(other.Reserve(31).ok());
    EXPECT_TRUE(other.Reserve(30).ok());
  }
  EXPECT_EQ(budget->used_bytes(), 0u);
}

TEST(MemoryBudgetTest, APartCountsInTheWholeToo) {
  const auto whole = std::make_shared<MemoryBudget>(100);
  const auto part = std::make_shared<MemoryBudget>(60, "tenant_bytes_max", whole);
  const auto other = std::make_shared<MemoryBudget>(90, "tenant_bytes_max", whole);
  ASSERT_TRUE(part->Reserve(50).ok());
  EXPECT_EQ(whole->used_bytes(), 50u);
  const absl::Status over = part->Reserve(11);
  EXPECT_TRUE(std::string(over.message()).starts_with("tenant_bytes_max"));
  // Refused by the whole: then it counts nowhere.
  const absl::Status full = other->Reserve(51);
  EXPECT_TRUE(std::string(full.message()).starts_with("memory_bytes_max"));
  EXPECT_EQ(other->used_bytes(), 0u);
  part->Adjust(50, 10);
  EXPECT_EQ(whole->used_bytes(), 10u);
  EXPECT_TRUE(other->Reserve(90).ok());
}

}  // namespace
}  // namespace attic
