// Where slots lie: balance by capacity, zones, movement, speed. Everything through NextMap.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/unit/cluster/placement/cluster_fixture.h"

namespace attic {
namespace {

// Rounding apart, what is promised.
constexpr double kImbalanceMax = 0.10;

// Of this process, which other work on the machine does not change.
double SecondsOfProcessor(std::clock_t begin) {
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(PlacementTest, AThousandNodesOfMixedCapacity) {
  std::mt19937_64 random(11);
  for (const uint32_t zones : {3u, 10u}) {
    ClusterView view;
    view.members = MakeMembers(1000, zones);
    for (Member& member : view.members) member.capacity = uint64_t{1} << (random() % 3);
    const PlacementOptions options{.slots = 16384};
    const std::clock_t begin = std::clock();
    const ClusterMap map = NextMap({}, view, options);
    const double seconds = SecondsOfProcessor(begin);
    const std::clock_t again = std::clock();
    EXPECT_TRUE(NextMap(map, view, options) == map);
    std::printf("1000 nodes, %u zones, 16384 slots: %.0f ms, unchanged %.1f ms, imbalance %.3f\n",
                zones, seconds * 1e3, SecondsOfProcessor(again) * 1e3, WorstImbalance(map));
    EXPECT_EQ(ValidateClusterMap(map), absl::OkStatus());
    EXPECT_LT(seconds, 30) << "with sanitizers; 1 without";
    EXPECT_EQ(SlotsNotSpread(map, 3), 0u);
    EXPECT_LE(WorstImbalance(map), kImbalanceMax);
  }
}

TEST(PlacementTest, AFourthNodeTakesAQuarter) {
  for (const uint32_t zones : {0u, 4u}) {
    ClusterView view;
    view.members = MakeMembers(3, zones);
    const PlacementOptions options{.replicas = 2};
    const ClusterMap before = Settle({}, view, options);
    Join(view, MakeMember("n0003", zones == 0 ? "" : "z3"));
    const ClusterMap after = Settle(before, view, options);
    const double replicas = 2.0 * options.slots;
    const double moved = static_cast<double>(ReplicasMoved(before, after)) / replicas;
    std::printf("fourth node, %u zones: %.4f of the replicas moved, imbalance %.3f\n", zones, moved,
                WorstImbalance(after));
    EXPECT_GE(moved, 0.25 * (1 - kImbalanceMax) - 2 / replicas);
    EXPECT_LE(moved, 0.25 + 2 / replicas);
    EXPECT_EQ(SlotsOf(after, "n0003"), moved * replicas) << "others moved, too";
    EXPECT_LE(WorstImbalance(after), kImbalanceMax);
  }
}

// A zone, of several, that has hardly a slot to gain.
bool AZoneIsEverywhere(const ClusterMap& map) {
  std::map<std::string, size_t> slots;
  for (const SlotAssignment& slot : map.slots) {
    for (const uint32_t node : slot.replicas) ++slots[map.nodes[node].zone];
  }
  return slots.size() > 1 && std::any_of(slots.begin(), slots.end(), [&](const auto& zone) {
           return zone.second > map.slots.size() * 8 / 10;
         });
}

// Random clusters grow and shrink by a node at a time.
TEST(PlacementTest, RandomGrowthMovesLittleAndStaysBalanced) {
  double ratio_worst[2] = {0, 0};  // [whether a zone is in almost every slot]
  double imbalance_worst = 0;
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    const uint32_t zones = static_cast<uint32_t>(random() % 5);
    const uint32_t count = 6 + static_cast<uint32_t>(random() % 20);
    ClusterView view;
    view.members = MakeMembers(count, zones);
    for (Member& member : view.members) member.capacity = 2 + random() % 3;
    const PlacementOptions options{.slots = 1024, .incoming_max = 512};
    ClusterMap map = Settle({}, view, options);
    for (int step = 0; step < 6; ++step) {
      const ClusterMap before = map;
      double least = 0;
      if (random() % 2 == 0) {
        const std::string zone = zones == 0 ? "" : absl::StrCat("z", random() % zones);
        const std::string id = absl::StrFormat("m%04d", random() % 10000);
        Join(view, MakeMember(id, zone, 2 + random() % 3));
        map = Settle(map, view, options);
        least = static_cast<double>(SlotsOf(map, id));
      } else {
        const std::string id = view.members[random() % view.members.size()].node_id;
        view.draining.insert(id);
        least = static_cast<double>(SlotsOf(map, id));
        map = Settle(map, view, options);
        EXPECT_EQ(SlotsOf(map, id), 0u);
      }
      if (least > 0) {
        double& worst = ratio_worst[AZoneIsEverywhere(before) || AZoneIsEverywhere(map) ? 1 : 0];
        worst = std::max(worst, static_cast<double>(ReplicasMoved(before, map)) / least);
      }
      imbalance_worst = std::max(imbalance_worst, WorstImbalance(map));
      EXPECT_EQ(SlotsNotSpread(map, zones == 0 ? 1 : std::min(zones, 3u)), 0u);
    }
  }
  std::printf(
      "random growth: imbalance at most %.3f, moved at most %.2f of the least; %.2f where\n"
      "a zone is in almost every slot\n",
      imbalance_worst, ratio_worst[0], ratio_worst[1]);
  EXPECT_LE(imbalance_worst, kImbalanceMax);
  EXPECT_LE(ratio_worst[0], 1.25);
  // First replicas get to such a zone, or from it, by exchanges alone, each of which moves two.
  EXPECT_LE(ratio_worst[1], 2.5);
}

}  // namespace
}  // namespace attic
