// Random histories of a cluster against what callers were told: nodes go and come back, slots move,
// peers fail in the middle of what they say, callers go on.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "tests/unit/cluster/repair/sim_cluster.h"

namespace attic {
namespace {

uint64_t FirstSeed() {
  const char* seed = std::getenv("ATTIC_TEST_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : std::random_device{}();
}

// How many nodes returned and slots moved.
uint64_t RunHistory(const SimOptions& options, int steps) {
  SCOPED_TRACE("ATTIC_TEST_SEED=" + std::to_string(options.seed));
  SimCluster cluster(options);
  std::mt19937_64 random(options.seed + 1);
  for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
    const uint64_t kind = random() % 10;
    if (kind < 6) {
      cluster.RandomCall();
    } else if (kind < 7) {
      cluster.RandomEvent();
    } else {
      cluster.clock().Advance(absl::Milliseconds(random() % 3000));
      cluster.Pass(static_cast<uint32_t>(random() % options.nodes));
    }
    cluster.CheckLiveReplicas();
  }
  if (testing::Test::HasFailure()) return 0;
  cluster.Settle();
  cluster.CheckLiveReplicas();
  cluster.CheckExact();
  return cluster.returns() + cluster.moves();
}

class RepairHistoryTest : public testing::TestWithParam<SimOptions> {};

TEST_P(RepairHistoryTest, EveryNodeHoldsWhatItShould) {
  const uint64_t seed = FirstSeed();
  uint64_t happened = 0;
  for (uint64_t i = 0; i < 20 && !HasFailure(); ++i) {
    SimOptions options = GetParam();
    options.seed = seed + i;
    happened += RunHistory(options, 600);
  }
  EXPECT_GT(happened, 100);
}

INSTANTIATE_TEST_SUITE_P(
    Clusters, RepairHistoryTest,
    testing::Values(SimOptions{},  // nothing fails
                    SimOptions{.missed_append = 0.3}, SimOptions{.missed_append = 0.2, .busy = 0.2},
                    SimOptions{.fault = 0.2},
                    SimOptions{.fault = 0.2, .missed_append = 0.3, .busy = 0.2},
                    SimOptions{.missed_append = 0.3, .busy = 0.2, .single = 0.5},
                    SimOptions{
                        .nodes = 6, .slots = 16, .fault = 0.1, .missed_append = 0.2, .busy = 0.1}));

}  // namespace
}  // namespace attic
