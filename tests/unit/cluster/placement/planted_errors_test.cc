// Whether the model of placement_simulation_test.cc would see errors: it runs controllers that make
// one each.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/unit/cluster/placement/cluster_model.h"

namespace attic {
namespace {

using Count = uint64_t ModelCounts::*;

// Errors of one kind, of the first of some small clusters in which there are any; 0 if the model
// sees none.
uint64_t FirstErrors(Count count, const NextMapFunction& next_map) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    ClusterModel model(
        {.seed = seed,
         .nodes = 12,
         .zones = 4,
         .placement = {.slots = 128, .replace_after = absl::Seconds(60), .incoming_max = 32}},
        next_map);
    for (int step = 0; step < 200 && model.counts().*count == 0; ++step) {
      const std::vector<std::string> up = model.UpNodes();
      const std::vector<std::string> failed = model.FailedNodes();
      if (random() % 8 == 0 && up.size() > 8) {
        const bool cut_off = random() % 2 == 0;
        model.Fail(up[random() % up.size()],
                   cut_off ? ClusterModel::Failure::kCutOff : ClusterModel::Failure::kCrash);
      }
      if (random() % 16 == 0 && !failed.empty()) model.Return(failed[random() % failed.size()]);
      if (random() % 32 == 0) model.Add(absl::StrCat("z", random() % 4), 2);
      model.Step();
    }
    if (model.counts().*count > 0) return model.counts().*count;
  }
  return 0;
}

// What changes in slots between the maps: calls change(old slot, new slot), with nodes by ids.
template <typename Change>
void ForTakeOvers(const ClusterMap& map, ClusterMap& next, const Change& change) {
  for (size_t i = 0; i < map.slots.size(); ++i) {
    std::vector<uint32_t>& replicas = next.slots[i].replicas;
    for (size_t rank = 0; rank < std::min(replicas.size(), map.slots[i].replicas.size()); ++rank) {
      const std::string& before = map.nodes[map.slots[i].replicas[rank]].id;
      if (next.nodes[replicas[rank]].id != before) {
        change(replicas, rank);
        break;
      }
    }
  }
}

TEST(PlantedErrorsTest, NoneInNextMap) {
  for (const Count count :
       {&ModelCounts::invalid_maps, &ModelCounts::not_fixed, &ModelCounts::hollow_replicas,
        &ModelCounts::copies_given_up, &ModelCounts::over_budget}) {
    EXPECT_EQ(FirstErrors(count, NextMap), 0u);
  }
}

TEST(PlantedErrorsTest, ANewNodeIsPutFirst) {
  EXPECT_GT(FirstErrors(&ModelCounts::hollow_replicas,
                        [](const auto& map, const auto& view, const auto& options) {
                          ClusterMap next = NextMap(map, view, options);
                          ForTakeOvers(map, next, [](std::vector<uint32_t>& replicas, size_t rank) {
                            std::rotate(replicas.begin(), replicas.begin() + rank,
                                        replicas.begin() + rank + 1);
                          });
                          return next;
                        }),
            0u);
}

// Survivors move up: they lack the sessions of fewer replicas than their old ranks.
TEST(PlantedErrorsTest, ANewNodeIsPutLast) {
  EXPECT_GT(FirstErrors(&ModelCounts::hollow_replicas,
                        [](const auto& map, const auto& view, const auto& options) {
                          ClusterMap next = NextMap(map, view, options);
                          ForTakeOvers(map, next, [](std::vector<uint32_t>& replicas, size_t rank) {
                            std::rotate(replicas.begin() + rank, replicas.begin() + rank + 1,
                                        replicas.end());
                          });
                          return next;
                        }),
            0u);
}

TEST(PlantedErrorsTest, AnIncomingNodeTakesOverUnfilled) {
  EXPECT_GT(FirstErrors(&ModelCounts::hollow_replicas,
                        [](const auto& map, auto view, const auto& options) {
                          for (Member& member : view.members) {
                            member.synced_epoch = map.epoch;
                            for (uint32_t slot = 0; slot < map.slots.size(); ++slot)
                              member.synced_slots.insert(slot);
                          }
                          return NextMap(map, view, options);
                        }),
            0u);
}

TEST(PlantedErrorsTest, EpochsOfReportsAreNotCompared) {
  EXPECT_GT(FirstErrors(&ModelCounts::hollow_replicas,
                        [](const auto& map, auto view, const auto& options) {
                          for (Member& member : view.members) member.synced_epoch = map.epoch;
                          return NextMap(map, view, options);
                        }),
            0u);
}

TEST(PlantedErrorsTest, ANodeThatReturnsIsLiveAtOnce) {
  EXPECT_GT(FirstErrors(&ModelCounts::hollow_replicas,
                        [](const auto& map, const auto& view, const auto& options) {
                          ClusterMap next = NextMap(map, view, options);
                          for (ClusterNode& node : next.nodes) {
                            if (node.state == NodeState::kRepairing) node.state = NodeState::kLive;
                          }
                          return next;
                        }),
            0u);
}

TEST(PlantedErrorsTest, SlotsKeepTheirEpochs) {
  EXPECT_GT(FirstErrors(&ModelCounts::invalid_maps,
                        [](const auto& map, const auto& view, const auto& options) {
                          ClusterMap next = NextMap(map, view, options);
                          for (size_t i = 0; i < map.slots.size(); ++i)
                            next.slots[i].epoch = map.slots[i].epoch;
                          return next;
                        }),
            0u);
}

TEST(PlantedErrorsTest, StatesOfNodesChangeEpochsOfSlots) {
  EXPECT_GT(FirstErrors(&ModelCounts::invalid_maps,
                        [](const auto& map, const auto& view, const auto& options) {
                          ClusterMap next = NextMap(map, view, options);
                          if (next == map) return next;
                          for (SlotAssignment& slot : next.slots) slot.epoch = next.epoch;
                          return next;
                        }),
            0u);
}

TEST(PlantedErrorsTest, AnEpochIsUsedTwice) {
  EXPECT_GT(FirstErrors(&ModelCounts::invalid_maps,
                        [](const auto& map, const auto& view, const auto& options) {
                          ClusterMap next = NextMap(map, view, options);
                          if (map.epoch > 3) {
                            next.epoch = map.epoch;
                            for (SlotAssignment& slot : next.slots)
                              slot.epoch = std::min(slot.epoch, map.epoch);
                            for (ClusterNode& node : next.nodes)
                              node.state_epoch = std::min(node.state_epoch, map.epoch);
                          }
                          return next;
                        }),
            0u);
}

TEST(PlantedErrorsTest, NodesThatAreDownLoseTheirSlots) {
  EXPECT_GT(FirstErrors(&ModelCounts::copies_given_up,
                        [](const auto& map, auto view, const auto& options) {
                          for (const ClusterNode& node : map.nodes) {
                            const bool down =
                                std::none_of(view.members.begin(), view.members.end(),
                                             [&](const Member& m) { return m.node_id == node.id; });
                            if (down) view.removed.insert(node.id);
                          }
                          return NextMap(map, view, options);
                        }),
            0u);
}

TEST(PlantedErrorsTest, TheBudgetIsForgotten) {
  EXPECT_GT(FirstErrors(&ModelCounts::over_budget,
                        [](const auto& map, const auto& view, auto options) {
                          options.incoming_max *= 4;
                          return NextMap(map, view, options);
                        }),
            0u);
}

TEST(PlantedErrorsTest, MapsFlap) {
  EXPECT_GT(FirstErrors(&ModelCounts::not_fixed,
                        [](const auto& map, auto view, auto options) {
                          options.imbalance_max = 0;
                          view.rebalance = map.epoch;
                          return NextMap(map, view, options);
                        }),
            0u);
}

}  // namespace
}  // namespace attic
