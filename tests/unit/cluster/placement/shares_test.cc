#include "server/cluster/placement/shares.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attic {
namespace {

TEST(SharesTest, AreByCapacity) {
  const std::vector<ShareNode> nodes = {{1, 0}, {2, 1}, {0, 1}, {1, 2}};
  const Shares shares = ComputeShares(nodes, 400, 1);
  EXPECT_EQ(shares[0], (std::vector<double>{100, 200, 0, 100}));
  EXPECT_EQ(shares[1], (std::vector<double>{0, 0, 0, 0}));
}

TEST(SharesTest, ANodeIsInASlotOnce) {
  const std::vector<ShareNode> nodes = {{8, 0}, {1, 0}, {1, 0}};
  const Shares shares = ComputeShares(nodes, 100, 2);
  EXPECT_NEAR(shares[0][0], 80, 1e-6);
  EXPECT_NEAR(shares[1][0], 100, 1e-6);
  EXPECT_NEAR(shares[1][1], 50, 1e-6);
}

TEST(SharesTest, ASlotHasAllZones) {
  // Of two zones the small one is in each slot, the large one takes the third replicas.
  const std::vector<ShareNode> nodes = {{1, 0}, {9, 1}, {9, 1}, {9, 1}};
  const Shares shares = ComputeShares(nodes, 90, 3);
  EXPECT_NEAR(shares[1][0], 90, 1e-6);
  EXPECT_NEAR(shares[2][0], 90, 1e-6);
  EXPECT_NEAR(shares[2][1], 60, 1e-6);
}

TEST(SharesTest, RandomOnesAddUpAndKeepTheBounds) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    std::vector<ShareNode> nodes(3 + random() % 20);
    const uint32_t zone_count = 1 + random() % 5;
    for (ShareNode& node : nodes) {
      node.capacity = static_cast<double>(1 + random() % 50);
      node.zone = static_cast<uint32_t>(random() % std::min<size_t>(zone_count, nodes.size()));
    }
    const double slots = 1000;
    const Shares shares = ComputeShares(nodes, 1000, 3);
    std::vector<double> capacity(nodes.size());
    std::vector<uint8_t> used(nodes.size());
    for (const ShareNode& node : nodes) used[node.zone] = 1;
    const uint32_t zones = std::accumulate(used.begin(), used.end(), 0u);
    for (uint32_t k = 1; k <= 3; ++k) {
      std::vector<double> of_zone(nodes.size());
      double sum = 0;
      for (size_t i = 0; i < nodes.size(); ++i) {
        EXPECT_LE(shares[k - 1][i], slots + 1e-6);
        if (k > 1) {
          EXPECT_GE(shares[k - 1][i], shares[k - 2][i] - 1e-6);
        }
        of_zone[nodes[i].zone] += shares[k - 1][i];
        sum += shares[k - 1][i];
        // The larger of two nodes of a zone has no less.
        for (size_t j = 0; j < i; ++j) {
          if (nodes[i].zone == nodes[j].zone && nodes[i].capacity >= nodes[j].capacity) {
            EXPECT_GE(shares[k - 1][i], shares[k - 1][j] - 1e-6);
          }
        }
      }
      EXPECT_NEAR(sum, k * slots, 1e-3);
      const double zone_max = slots * (k >= zones ? k - zones + 1 : 1);
      for (const double of_one : of_zone) EXPECT_LE(of_one, zone_max + 1e-3);
    }
  }
}

}  // namespace
}  // namespace attic
