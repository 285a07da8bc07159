#include "client/cpp/cluster/append_window.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace attic {
namespace {

const ShardWrite::Replica* FindReplica(const ShardWrite& write, const std::string& node_id) {
  const auto found = write.replicas.find(node_id);
  return found == write.replicas.end() ? nullptr : &found->second;
}

bool Holds(const ShardWrite& write, const std::string& node_id) {
  const ShardWrite::Replica* const replica = FindReplica(write, node_id);
  return replica != nullptr && replica->stage == ShardWrite::Stage::kHeld;
}

bool Lags(const ShardLane& lane, const std::string& node_id) {
  const auto found = lane.nodes.find(node_id);
  return found != lane.nodes.end() && found->second.lagging;
}

}  // namespace

bool IsLag(const absl::Status& refusal) {
  return absl::IsOutOfRange(refusal) || absl::IsNotFound(refusal);
}

namespace {

// The `count`th largest.
int64_t Nth(std::vector<int64_t>& values, size_t count) {
  std::sort(values.begin(), values.end(), std::greater<>());
  return values[count - 1];
}

}  // namespace

bool ShardLane::IsFirstMissing(const ShardWrite& write, const std::string& node_id) const {
  for (const auto& earlier : writes) {
    if (earlier.get() == &write) return true;
    if (!Holds(*earlier, node_id)) return false;
  }
  return true;
}

bool Acknowledge(const ClusterMap& map, const ShardLane& lane, ShardWrite& write) {
  if (write.acknowledged) return false;
  const SlotRoute route = RouteOf(map, write.slot, write.info->replication.replicas);
  for (const uint32_t node : route.joining) {
    if (!Holds(write, map.nodes[node].id)) return false;
  }
  std::vector<int64_t> watermarks, durable;
  size_t lagging = 0;
  for (const uint32_t node : route.writers) {
    const std::string& id = map.nodes[node].id;
    if (Holds(write, id)) {
      const AppendAck& ack = FindReplica(write, id)->ack;
      watermarks.push_back(ack.watermark);
      durable.push_back(ack.durable_watermark);
    } else if (Lags(lane, id) && map.nodes[node].state != NodeState::kLive &&
               !map.nodes[node].joining) {
      ++lagging;
    }
  }
  const size_t needed = AcksNeeded(write.info->replication.ack_policy, route, lagging);
  if (watermarks.size() < needed) return false;
  write.acknowledged = true;
  const int64_t begin = write.append.block_begin;
  write.ack = {.watermark = begin + Nth(watermarks, needed), .durable_watermark = 0};
  // Nothing of the block durable: nothing can be said of the blocks before it.
  const int64_t durable_here = Nth(durable, needed);
  if (durable_here > 0) write.ack.durable_watermark = begin + durable_here;
  return true;
}

bool IsAwaited(const ClusterMap& map, const ShardLane& lane, const ShardWrite& write) {
  const SlotRoute route = RouteOf(map, write.slot, write.info->replication.replicas);
  const auto awaited = [&](uint32_t node) {
    const std::string& id = map.nodes[node].id;
    return !Holds(write, id) && !Lags(lane, id);
  };
  return std::any_of(route.writers.begin(), route.writers.end(), awaited) ||
         std::any_of(route.joining.begin(), route.joining.end(), awaited);
}

absl::Status Hopeless(const ClusterMap& map, const ShardLane& lane, const ShardWrite& write) {
  const SlotRoute route = RouteOf(map, write.slot, write.info->replication.replicas);
  if (write.acknowledged || route.writers.empty() || route.writers.size() < route.copies) {
    return absl::OkStatus();
  }
  absl::Status refusal;
  for (const uint32_t node : route.writers) {
    const std::string& id = map.nodes[node].id;
    if (Holds(write, id) || !Lags(lane, id) || !lane.IsFirstMissing(write, id)) {
      return absl::OkStatus();
    }
    const absl::Status& one = lane.nodes.at(id).refusal;
    // One that refused in passing may hold what the others lack.
    if (!IsLag(one)) return absl::OkStatus();
    // A replica that is there but lacks something says more than one that has lost the session.
    if (refusal.ok() || absl::IsOutOfRange(one)) refusal = one;
  }
  return refusal;
}

AppendAck AckOfBatch(const WriteBatch& batch) {
  // The last block's parts say how far a head is; earlier ones are full.
  AppendAck ack{.watermark = std::numeric_limits<int64_t>::max(),
                .durable_watermark = std::numeric_limits<int64_t>::max()};
  const uint32_t last = batch.writes.back()->append.shard.block;
  for (const auto& write : batch.writes) {
    if (write->append.shard.block != last) continue;
    ack.watermark = std::min(ack.watermark, write->ack.watermark);
    ack.durable_watermark = std::min(ack.durable_watermark, write->ack.durable_watermark);
  }
  return ack;
}

}  // namespace attic
