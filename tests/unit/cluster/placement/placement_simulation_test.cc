// Clusters in virtual time under random failures, returns, growth, drains and zone losses. Prints
// the figures that README.md quotes; run it alone with
//   build/release/tests/unit/cluster/placement/placement_simulation_test
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/cluster/placement/cluster_fixture.h"
#include "tests/unit/cluster/placement/cluster_model.h"

namespace attic {
namespace {

constexpr int kStepsUntilRemoved = 50;

// What happens in a run.
struct Weather {
  int steps = 200;
  double failures_per_step = 1;
  double returns = 0.05;          // of failed nodes that will, in a step
  double disks_lost = 0.15;       // of failures
  double changes_per_step = 0.1;  // nodes that are added or drained
  double zone_losses = 0.005;     // in a step
  size_t failed_max = 40;
  int zone_lost_from = -1;  // a zone is away for longer than replace_after
  int zone_lost_until = -1;
};

class Scenario {
 public:
  Scenario(const ModelOptions& options, const Weather& weather, NextMapFunction next_map = NextMap)
      : options_(options),
        weather_(weather),
        model_(options, std::move(next_map)),
        random_(options.seed * 7919) {}

  // False when it did not heal.
  bool Simulate() {
    for (step_ = 0; step_ < weather_.steps; ++step_) {
      Failures();
      Changes();
      LongZoneLoss();
      Returns(weather_.returns);
      RemoveLostNodes();
      model_.Step();
    }
    Returns(1);
    for (const std::string& id : model_.FailedNodes()) model_.Remove(id);
    const bool healed = model_.Heal(4000);
    model_.FinishLives();
    return healed;
  }

  ClusterModel& model() { return model_; }

 private:
  bool Chance(double probability) {
    return std::uniform_real_distribution<double>(0, 1)(random_) < probability;
  }
  template <typename T>
  const T& Pick(const std::vector<T>& of) {
    return of[random_() % of.size()];
  }

  void Fail(const std::string& id, bool may_lose) {
    if (may_lose && Chance(weather_.disks_lost)) {
      model_.Fail(id, ClusterModel::Failure::kDiskLost);
      // Some get a new disk, some never return.
      if (Chance(0.5)) {
        returning_.push_back(id);
      } else {
        lost_.emplace_back(id, step_);
      }
      return;
    }
    model_.Fail(id, Chance(0.3) ? ClusterModel::Failure::kCutOff : ClusterModel::Failure::kCrash);
    if (Chance(0.2)) {
      model_.Return(id);  // before anybody has seen it
    } else {
      returning_.push_back(id);
    }
  }

  void Failures() {
    double failures = weather_.failures_per_step;
    while (Chance(failures)) {
      failures -= 1;
      const std::vector<std::string> up = model_.UpNodes();
      if (model_.FailedNodes().size() < weather_.failed_max && up.size() > 4) Fail(Pick(up), true);
    }
    if (!Chance(weather_.zone_losses)) return;
    const std::string zone = absl::StrCat("z", random_() % options_.zones);
    const std::vector<std::string> up = model_.UpNodes();
    for (const std::string& id : model_.NodesOfZone(zone)) {
      if (std::find(up.begin(), up.end(), id) != up.end()) Fail(id, false);
    }
  }

  void LongZoneLoss() {
    const std::vector<std::string> of_zone = model_.NodesOfZone("z0");
    const std::vector<std::string> up = model_.UpNodes();
    if (step_ == weather_.zone_lost_from) {
      for (const std::string& id : of_zone) {
        if (std::find(up.begin(), up.end(), id) == up.end()) continue;
        model_.Fail(id, ClusterModel::Failure::kCrash);
        zone_.push_back(id);
      }
    }
    if (step_ != weather_.zone_lost_until) return;
    for (const std::string& id : zone_) model_.Return(id);
  }

  void Changes() {
    if (!Chance(weather_.changes_per_step)) return;
    const std::vector<std::string> up = model_.UpNodes();
    if (Chance(0.5) && up.size() > options_.nodes * 3 / 4) {
      model_.Drain(Pick(up));
    } else {
      model_.Add(absl::StrCat("z", random_() % options_.zones), uint64_t{1} << (random_() % 3));
    }
  }

  // Operators do that in the end.
  void RemoveLostNodes() {
    std::erase_if(lost_, [&](const auto& lost) {
      if (step_ - lost.second < kStepsUntilRemoved) return false;
      model_.Remove(lost.first);
      return true;
    });
  }

  void Returns(double part) {
    std::erase_if(returning_, [&](const std::string& id) {
      if (!Chance(part)) return false;
      model_.Return(id);
      return true;
    });
  }

  const ModelOptions options_;
  const Weather weather_;
  ClusterModel model_;
  std::mt19937_64 random_;
  std::vector<std::string> returning_;
  std::vector<std::string> zone_;                  // that is away for long
  std::vector<std::pair<std::string, int>> lost_;  // and the step in which
  int step_ = 0;
};

// Of nodes that are to have slots.
uint32_t ZonesOf(const ClusterMap& map) {
  std::set<std::string> zones;
  for (const ClusterNode& node : map.nodes) {
    if (node.state == NodeState::kLive && !node.draining) zones.insert(node.zone);
  }
  return static_cast<uint32_t>(zones.size());
}

void ExpectNoErrors(const ModelCounts& counts) {
  EXPECT_EQ(counts.invalid_maps, 0u);
  EXPECT_EQ(counts.not_fixed, 0u);
  EXPECT_EQ(counts.hollow_replicas, 0u);
  EXPECT_EQ(counts.copies_given_up, 0u);
  EXPECT_EQ(counts.over_budget, 0u);
  EXPECT_EQ(counts.losses_unexplained, 0u);
}

void Print(const char* what, uint64_t seed, Scenario& run) {
  const ModelCounts& counts = run.model().counts();
  std::printf(
      "%s, seed %lu: %zu nodes, %lu steps, %lu maps; imbalance %.3f; moved %.0f, least %.0f, ratio "
      "%.2f; %.3f of %lu writes refused; lost of 1, 2, 3 replicas %lu, %lu, %lu of %zu\n",
      what, seed, run.model().map().nodes.size(), counts.steps, counts.maps,
      WorstImbalance(run.model().map()), counts.moved, counts.moved_least,
      counts.moved / counts.moved_least,
      static_cast<double>(counts.writes_refused) / static_cast<double>(counts.writes),
      counts.writes, counts.losses[0], counts.losses[1], counts.losses[2],
      run.model().map().slots.size());
}

// After failures have ended, all is as if there had been none.
void ExpectHealed(Scenario& run) {
  const ClusterMap& map = run.model().map();
  ExpectNoErrors(run.model().counts());
  EXPECT_LE(WorstImbalance(map), 0.10);
  EXPECT_EQ(SlotsNotSpread(map, std::min(ZonesOf(map), 3u)), 0u);
  EXPECT_EQ(run.model().Incomplete(), 0u);
}

TEST(PlacementSimulationTest, AThousandNodes) {
  for (const uint64_t seed : {1, 2}) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const ModelOptions options{.seed = seed,
                               .nodes = 1000,
                               .zones = 10,
                               .placement = {.slots = 8192, .incoming_max = 512}};
    Scenario run(options, {.zone_lost_from = 40, .zone_lost_until = 140});
    EXPECT_TRUE(run.Simulate());
    Print("a thousand nodes", seed, run);
    ExpectHealed(run);
    EXPECT_EQ(ZonesOf(run.model().map()), 10u);
    EXPECT_LE(run.model().counts().moved / run.model().counts().moved_least, 1.25);
  }
}

// Rougher, and small enough for every corner to be seen.
ModelOptions SmallCluster(uint64_t seed) {
  std::mt19937_64 random(seed);
  const uint32_t zones = 1 + static_cast<uint32_t>(random() % 5);
  const uint32_t nodes = zones * (2 + static_cast<uint32_t>(random() % 5));
  return {
      .seed = seed,
      .nodes = std::max(nodes, 6u),
      .zones = zones,
      .placement = {
          .slots = 128, .replace_after = absl::Seconds(60), .incoming_max = 8u << (random() % 4)}};
}

Weather RoughWeather(const ModelOptions& options) {
  return {.steps = 300,
          .failures_per_step = 0.15,
          .returns = 0.08,
          .disks_lost = 0.1,
          .changes_per_step = 0.05,
          .failed_max = 1 + options.nodes / 4};
}

TEST(PlacementSimulationTest, ManySmallClusters) {
  constexpr uint64_t kSeeds = 80;
  double imbalance = 0;
  double moved = 0;
  double moved_least = 0;
  uint64_t maps = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const ModelOptions options = SmallCluster(seed);
    Scenario run(options, RoughWeather(options));
    EXPECT_TRUE(run.Simulate());
    ExpectHealed(run);
    imbalance = std::max(imbalance, WorstImbalance(run.model().map()));
    moved += run.model().counts().moved;
    moved_least += run.model().counts().moved_least;
    maps += run.model().counts().maps;
  }
  EXPECT_LE(moved / moved_least, 1.5);
  std::printf("%lu small clusters: %lu maps, imbalance at most %.3f, moved over least %.2f\n",
              kSeeds, maps, imbalance, moved / moved_least);
}

// Failures far apart, and no disk is lost before what it held is elsewhere: nothing may be lost but
// sessions of one replica.
TEST(PlacementSimulationTest, OneFailureAtATimeLosesNothing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    ModelOptions options = SmallCluster(seed);
    ClusterModel model(options);
    std::mt19937_64 random(seed);
    for (int i = 0; i < 8; ++i) {
      const std::vector<std::string> up = model.UpNodes();
      if (up.size() <= 5) break;
      const std::string id = up[random() % up.size()];
      model.Fail(id, ClusterModel::Failure::kDiskLost);
      for (uint64_t steps = random() % 20; steps > 0; --steps) model.Step();
      if (random() % 2 == 0) model.Return(id);
      EXPECT_TRUE(model.Heal(2000));
      EXPECT_EQ(model.Incomplete(), 0u);
    }
    EXPECT_EQ(model.counts().Errors(), 0u);
    EXPECT_EQ(model.counts().losses[1], 0u);
    EXPECT_EQ(model.counts().losses[2], 0u);
  }
}

}  // namespace
}  // namespace attic
