#include "server/cluster/placement/rendezvous.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attic {
namespace {

size_t FirstOf(const std::vector<uint64_t>& nodes, const std::vector<double>& capacities,
               uint32_t slot) {
  size_t best = 0;
  for (size_t i = 1; i < nodes.size(); ++i) {
    if (RendezvousScore(nodes[i], slot, capacities[i]) >
        RendezvousScore(nodes[best], slot, capacities[best])) {
      best = i;
    }
  }
  return best;
}

TEST(RendezvousTest, NodesAreFirstByCapacity) {
  const std::vector<double> capacities = {1, 2, 5};
  std::vector<uint64_t> nodes;
  for (const char* id : {"a", "b", "c"}) nodes.push_back(NodeHash(id));
  constexpr uint32_t kSlots = 80000;
  std::array<uint32_t, 3> counts{};
  for (uint32_t slot = 0; slot < kSlots; ++slot) ++counts[FirstOf(nodes, capacities, slot)];
  // Four standard deviations of a binomial variable are below 600.
  EXPECT_NEAR(counts[0], kSlots * 1 / 8, 600);
  EXPECT_NEAR(counts[1], kSlots * 2 / 8, 600);
  EXPECT_NEAR(counts[2], kSlots * 5 / 8, 600);
}

TEST(RendezvousTest, ANodeThatComesTakesSlotsAndMovesNoOthers) {
  std::vector<uint64_t> nodes;
  for (int i = 0; i < 10; ++i) nodes.push_back(NodeHash(absl::StrCat("n", i)));
  const std::vector<double> capacities(11, 3);
  std::vector<uint64_t> more = nodes;
  more.push_back(NodeHash("new"));
  uint32_t taken = 0;
  for (uint32_t slot = 0; slot < 11000; ++slot) {
    const size_t before = FirstOf(nodes, capacities, slot);
    const size_t after = FirstOf(more, capacities, slot);
    EXPECT_TRUE(after == before || after == 10);
    taken += after == 10 ? 1 : 0;
  }
  EXPECT_NEAR(taken, 1000, 125);
}

}  // namespace
}  // namespace attic
