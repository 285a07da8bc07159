#include "server/metrics/node_metrics.h"

#include <algorithm>
#include <array>
#include <string>

#include "api/cluster_map.h"
#include "server/metrics/queue_metrics.h"

namespace attic {
namespace {

constexpr std::array<NodeState, 3> kStates = {NodeState::kLive, NodeState::kRepairing,
                                              NodeState::kDown};
constexpr std::array<const char*, kGateRefusals> kReasons = {"no_map", "behind", "stale_epoch",
                                                             "not_here"};

// What a map says, of all nodes and of this one.
struct MapCounts {
  std::array<size_t, kStates.size()> nodes{};
  const ClusterNode* self = nullptr;  // null: not in the map
  size_t first = 0;                   // slots of this node
  size_t other = 0;
  size_t incoming = 0;
  size_t underreplicated = 0;
};

bool Contains(std::span<const uint32_t> nodes, uint32_t node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

MapCounts Count(const ClusterMap& map, const std::string& node_id) {
  MapCounts counts;
  for (const ClusterNode& node : map.nodes) {
    for (size_t i = 0; i < kStates.size(); ++i) counts.nodes[i] += node.state == kStates[i];
  }
  const int64_t index = map.FindNode(node_id);
  if (index >= 0) counts.self = &map.nodes[static_cast<size_t>(index)];
  for (const SlotAssignment& slot : map.slots) {
    const auto kept = ReplicasOf(slot, map.replicas_default);
    const auto live = std::count_if(kept.begin(), kept.end(), [&](uint32_t node) {
      return map.nodes[node].state == NodeState::kLive;
    });
    counts.underreplicated += static_cast<size_t>(live) < map.replicas_default;
    if (index < 0) continue;
    const auto self = static_cast<uint32_t>(index);
    const bool first = !slot.replicas.empty() && slot.replicas[0] == self;
    counts.first += first;
    counts.other += !first && Contains(slot.replicas, self);
    counts.incoming += Contains(slot.incoming, self);
  }
  return counts;
}

void WriteSelf(const ClusterMap& map, const ClusterNode& self, MetricWriter& writer) {
  writer.Gauge("attic_store_cluster_info", "Always 1; its labels say which node this is.", 1,
               {{"cluster", map.cluster}, {"node_id", self.id}, {"zone", self.zone}});
}

void WriteMap(const ClusterMap& map, const MapCounts& counts, MetricWriter& writer) {
  for (size_t i = 0; i < kStates.size(); ++i) {
    const MetricWriter::Labels labels = {{"state", NodeStateName(kStates[i])}};
    const bool own = counts.self != nullptr && counts.self->state == kStates[i];
    writer.Gauge("attic_store_cluster_node_state",
                 "1 for the state of this node in the map that it knows.", own ? 1 : 0, labels);
    writer.Gauge("attic_store_cluster_nodes", "Nodes of the map that this node knows, by state.",
                 static_cast<double>(counts.nodes[i]), labels);
  }
  writer.Gauge("attic_store_cluster_node_draining", "1 while this node gives its slots away.",
               counts.self != nullptr && counts.self->draining ? 1 : 0);
  writer.Gauge("attic_store_cluster_map_epoch", "Epoch of the map that this node knows; 0: none.",
               static_cast<double>(map.epoch));
  const auto slots = [&](const char* role, size_t count) {
    writer.Gauge("attic_store_cluster_slots", "Slots that this node holds or is filled with.",
                 static_cast<double>(count), {{"role", role}});
  };
  slots("first", counts.first);
  slots("other", counts.other);
  slots("incoming", counts.incoming);
  writer.Gauge("attic_store_cluster_underreplicated_slots",
               "Slots of the map with fewer live replicas than the cluster keeps.",
               static_cast<double>(counts.underreplicated));
}

void WriteRepair(const RepairProgress& repair, MetricWriter& writer) {
  writer.Gauge("attic_store_cluster_repair_shards_remaining",
               "Shards that this node has yet to compare or fill, as far as is known.",
               static_cast<double>(repair.shards_left));
  writer.Counter("attic_store_cluster_repair_bytes_total", "Bytes pulled from other nodes.",
                 static_cast<double>(repair.bytes_pulled));
  writer.Counter("attic_store_cluster_repair_shards_total", "Shards filled or corrected.",
                 static_cast<double>(repair.shards_pulled));
  writer.Counter("attic_store_cluster_repair_dropped_shards_total",
                 "Shards dropped because others hold them or their callers closed them.",
                 static_cast<double>(repair.shards_dropped));
  writer.Counter("attic_store_cluster_repair_failures_total",
                 "Repairs of a shard that failed, to be tried again.",
                 static_cast<double>(repair.failures));
}

void WriteEtcd(const EtcdCalls& etcd, MetricWriter& writer) {
  writer.Gauge("attic_store_cluster_etcd_connected",
               "1 while etcd's keys are watched and the node's lease is kept.",
               etcd.connected ? 1 : 0);
  writer.Counter("attic_store_cluster_etcd_failures_total", "Calls to etcd that failed.",
                 static_cast<double>(etcd.failures));
  writer.Counter("attic_store_cluster_lease_losses_total", "Times the node's lease ended.",
                 static_cast<double>(etcd.lease_losses));
  writer.Counter("attic_store_cluster_accusations_total",
                 "Registrations of processes that were gone, deleted by this node.",
                 static_cast<double>(etcd.accusations));
  writer.Counter("attic_store_cluster_returns_total",
                 "Times this node was called gone although it lived.",
                 static_cast<double>(etcd.returns));
}

}  // namespace

void WriteNode(const NodeActivity& node, MetricWriter& writer) {
  static const ClusterMap* const none = new ClusterMap();
  const ClusterMap& map = node.map == nullptr ? *none : *node.map;
  const MapCounts counts = Count(map, node.node_id);
  if (counts.self != nullptr) WriteSelf(map, *counts.self, writer);
  WriteMap(map, counts, writer);
  WriteRepair(node.repair, writer);
  if (node.etcd.has_value()) {
    writer.Gauge("attic_store_cluster_controller", "1 while this node is the elected controller.",
                 node.controlling ? 1 : 0);
    WriteEtcd(*node.etcd, writer);
  }
  for (size_t i = 0; i < kGateRefusals; ++i) {
    writer.Counter("attic_store_cluster_refusals_total",
                   "Requests refused by the cluster map, by reason.",
                   static_cast<double>(node.refusals[i]), {{"reason", kReasons[i]}});
  }
  WriteQueue("node_call", node.calls, writer);
  WriteQueue("transfer", node.transfers, writer);
}

}  // namespace attic
