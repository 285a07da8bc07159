// What a node exports of its cluster is what its map says.
#include "server/metrics/node_metrics.h"

#include <gtest/gtest.h>
#include <prometheus/metric_family.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attic {
namespace {

// {name without its prefix, and values of labels: value}.
std::map<std::string, double> Exported(const NodeActivity& node) {
  MetricWriter writer;
  WriteNode(node, writer);
  std::map<std::string, double> values;
  for (const auto& family : writer.Take()) {
    for (const auto& series : family.metric) {
      std::string name = family.name.substr(std::string("attic_store_").size());
      for (const auto& label : series.label) absl::StrAppend(&name, " ", label.value);
      values[name] = series.gauge.value + series.counter.value;
    }
  }
  return values;
}

std::vector<uint32_t> SomeOf(uint32_t nodes, size_t count, std::mt19937_64& random) {
  std::vector<uint32_t> all(nodes);
  for (uint32_t i = 0; i < nodes; ++i) all[i] = i;
  std::shuffle(all.begin(), all.end(), random);
  all.resize(std::min(count, all.size()));
  return all;
}

ClusterMap RandomMap(std::mt19937_64& random) {
  ClusterMap map{.cluster = "c", .epoch = random() % 1000 + 1};
  map.replicas_default = static_cast<uint32_t>(random() % kReplicasMax + 1);
  const auto nodes = static_cast<uint32_t>(random() % 6 + 1);
  for (uint32_t i = 0; i < nodes; ++i) {
    map.nodes.push_back({.id = absl::StrCat("n", i),
                         .zone = absl::StrCat("z", i % 2),
                         .state = static_cast<NodeState>(random() % 3 + 1),
                         .draining = random() % 3 == 0});
  }
  for (int i = 0; i < 50; ++i) {
    auto chosen = SomeOf(nodes, random() % 5, random);
    const size_t replicas = std::min<size_t>(chosen.size(), random() % (kReplicasMax + 1));
    const auto middle = chosen.begin() + static_cast<std::ptrdiff_t>(replicas);
    map.slots.push_back({.replicas = {chosen.begin(), middle}, .incoming = {middle, chosen.end()}});
  }
  return map;
}

TEST(NodeMetricsTest, CountsAreThoseOfTheMap) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    const ClusterMap map = RandomMap(random);
    const auto self = static_cast<uint32_t>(random() % map.nodes.size());
    const ClusterNode& node = map.nodes[self];
    std::map<std::string, double> expected = {
        {absl::StrCat("cluster_info c ", node.id, " ", node.zone), 1},
        {"cluster_map_epoch", map.epoch},
        {"cluster_node_draining", node.draining},
        {"cluster_underreplicated_slots", 0}};
    for (const char* role : {"first", "other", "incoming"}) {
      expected[absl::StrCat("cluster_slots ", role)] = 0;
    }
    for (const char* state : {"live", "repairing", "down"}) {
      expected[absl::StrCat("cluster_nodes ", state)] = 0;
      expected[absl::StrCat("cluster_node_state ", state)] =
          std::string(NodeStateName(node.state)) == state;
    }
    for (const ClusterNode& other : map.nodes) {
      ++expected[absl::StrCat("cluster_nodes ", NodeStateName(other.state))];
    }
    for (const SlotAssignment& slot : map.slots) {
      uint32_t live = 0;
      for (uint32_t rank = 0; rank < slot.replicas.size(); ++rank) {
        const uint32_t replica = slot.replicas[rank];
        live += rank < map.replicas_default && map.nodes[replica].state == NodeState::kLive;
        if (replica == self) ++expected[rank == 0 ? "cluster_slots first" : "cluster_slots other"];
      }
      for (const uint32_t incoming : slot.incoming) {
        if (incoming == self) ++expected["cluster_slots incoming"];
      }
      if (live < map.replicas_default) ++expected["cluster_underreplicated_slots"];
    }
    const auto exported =
        Exported({.node_id = node.id, .map = std::make_shared<const ClusterMap>(map)});
    for (const auto& [name, value] : expected) {
      ASSERT_TRUE(exported.contains(name)) << name;
      EXPECT_EQ(exported.at(name), value) << name;
    }
  }
}

TEST(NodeMetricsTest, EveryNumberIsUnderItsName) {
  const auto exported = Exported({.controlling = true,
                                  .etcd = EtcdCalls{.connected = true,
                                                    .failures = 2,
                                                    .lease_losses = 3,
                                                    .accusations = 19,
                                                    .returns = 20},
                                  .repair = {.shards_left = 4,
                                             .bytes_pulled = 5,
                                             .shards_pulled = 6,
                                             .shards_dropped = 7,
                                             .failures = 8},
                                  .refusals = {9, 10, 11, 12},
                                  .calls = {.queued = 13, .queued_max = 14, .refused = 15},
                                  .transfers = {.queued = 16, .queued_max = 17, .refused = 18}});
  const std::map<std::string, double> expected = {{"cluster_controller", 1},
                                                  {"cluster_etcd_connected", 1},
                                                  {"cluster_etcd_failures_total", 2},
                                                  {"cluster_lease_losses_total", 3},
                                                  {"cluster_accusations_total", 19},
                                                  {"cluster_returns_total", 20},
                                                  {"cluster_repair_shards_remaining", 4},
                                                  {"cluster_repair_bytes_total", 5},
                                                  {"cluster_repair_shards_total", 6},
                                                  {"cluster_repair_dropped_shards_total", 7},
                                                  {"cluster_repair_failures_total", 8},
                                                  {"cluster_refusals_total no_map", 9},
                                                  {"cluster_refusals_total behind", 10},
                                                  {"cluster_refusals_total stale_epoch", 11},
                                                  {"cluster_refusals_total not_here", 12},
                                                  {"queue_length node_call", 13},
                                                  {"queue_limit node_call", 14},
                                                  {"queue_refused_total node_call", 15},
                                                  {"queue_length transfer", 16},
                                                  {"queue_limit transfer", 17},
                                                  {"queue_refused_total transfer", 18}};
  for (const auto& [name, value] : expected) {
    ASSERT_TRUE(exported.contains(name)) << name;
    EXPECT_EQ(exported.at(name), value) << name;
  }
}

// A node that nobody knows yet, and one whose membership is a file.
TEST(NodeMetricsTest, WhatIsNotKnownIsNotMadeUp) {
  ClusterMap map{.cluster = "c", .epoch = 7};
  map.nodes = {{.id = "b", .zone = "z"}};
  map.slots = {{.replicas = {0}}};
  for (const ClusterMapPtr& known :
       {ClusterMapPtr(), ClusterMapPtr(std::make_shared<const ClusterMap>(map))}) {
    const auto exported = Exported({.node_id = "a", .map = known});
    EXPECT_EQ(exported.at("cluster_map_epoch"), known == nullptr ? 0 : 7);
    for (const char* name : {"cluster_node_state live", "cluster_node_state repairing",
                             "cluster_node_state down", "cluster_slots first"}) {
      EXPECT_EQ(exported.at(name), 0) << name;
    }
    for (const auto& [name, value] : exported) {
      EXPECT_FALSE(name.starts_with("cluster_info")) << name;
      EXPECT_FALSE(name.starts_with("cluster_etcd")) << name;
      EXPECT_NE(name, "cluster_controller");
      EXPECT_NE(name, "cluster_lease_losses_total");
      EXPECT_NE(name, "cluster_accusations_total");
      EXPECT_NE(name, "cluster_returns_total");
    }
  }
}

}  // namespace
}  // namespace attic
