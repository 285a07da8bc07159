#include "server/cluster/placement/shares.h"

#include <algorithm>

#include "base/check.h"

namespace attic {
namespace {

constexpr int kBisections = 60;

// The zones' nodes, and what zones and nodes take at most.
struct Bounds {
  std::span<const ShareNode> nodes;
  std::vector<std::vector<uint32_t>> zones;  // nodes with a share
  double node_max = 0;
  double zone_max = 0;
};

double NodeTakes(const Bounds& bounds, uint32_t node, double level) {
  return std::min(bounds.node_max, level * bounds.nodes[node].capacity);
}

double ZoneTakes(const Bounds& bounds, const std::vector<uint32_t>& zone, double level) {
  double sum = 0;
  for (const uint32_t node : zone) sum += NodeTakes(bounds, node, level);
  return sum;
}

double AllTake(const Bounds& bounds, double level) {
  double sum = 0;
  for (const auto& zone : bounds.zones) {
    sum += std::min(bounds.zone_max, ZoneTakes(bounds, zone, level));
  }
  return sum;
}

// The least level at which `takes`, which grows with it, reaches `wanted`, between 0 and `high`.
template <typename Takes>
double LevelOf(double wanted, double high, const Takes& takes) {
  double low = 0;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    (takes(middle) < wanted ? low : high) = middle;
  }
  return high;
}

std::vector<double> SharesOf(const Bounds& bounds, double wanted, double capacity,
                             double capacity_min) {
  std::vector<double> shares(bounds.nodes.size(), 0);
  // At `high` every node takes all it can.
  const double high = bounds.node_max / capacity_min;
  double level = wanted / capacity;
  if (AllTake(bounds, level) < wanted * (1 - 1e-12)) {
    level = LevelOf(wanted, high, [&](double at) { return AllTake(bounds, at); });
  }
  for (const auto& zone : bounds.zones) {
    double zone_level = level;
    if (ZoneTakes(bounds, zone, level) > bounds.zone_max) {
      zone_level =
          LevelOf(bounds.zone_max, level, [&](double at) { return ZoneTakes(bounds, zone, at); });
    }
    for (const uint32_t node : zone) shares[node] = NodeTakes(bounds, node, zone_level);
  }
  return shares;
}

}  // namespace

Shares ComputeShares(std::span<const ShareNode> nodes, size_t slots, uint32_t replicas) {
  ATTIC_CHECK(replicas <= kReplicasMax);
  Bounds bounds{.nodes = nodes, .zones = {}, .node_max = static_cast<double>(slots)};
  bounds.zones.resize(nodes.size());
  double capacity = 0;
  double capacity_min = 0;
  for (uint32_t node = 0; node < nodes.size(); ++node) {
    const double of_node = nodes[node].capacity;
    if (of_node <= 0) continue;
    bounds.zones[nodes[node].zone].push_back(node);
    capacity_min = capacity == 0 ? of_node : std::min(capacity_min, of_node);
    capacity += of_node;
  }
  std::erase_if(bounds.zones, [](const auto& zone) { return zone.empty(); });

  Shares shares;
  for (uint32_t k = 1; k <= kReplicasMax; ++k) {
    if (k > replicas) {
      shares[k - 1].assign(nodes.size(), 0);
      continue;
    }
    const size_t zones_of_slot = std::min<size_t>(k, bounds.zones.size());
    bounds.zone_max = bounds.node_max * static_cast<double>(k - zones_of_slot + 1);
    shares[k - 1] = SharesOf(bounds, bounds.node_max * k, capacity, capacity_min);
  }
  return shares;
}

}  // namespace attic
