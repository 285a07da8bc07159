#include "client/cpp/cluster/description_merge.h"

#include <algorithm>
#include <limits>
#include <map>

namespace attic {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// Of one head, its blocks in order: how many positions from the first are there without a gap.
struct HeadProgress {
  int64_t watermark = 0, durable = 0, indexed = 0;
  bool watermark_ended = false, durable_ended = false;

  void Add(const LayerDescription& block, int64_t shard_tokens) {
    indexed += block.indexed_tokens;
    if (!watermark_ended) watermark += block.watermark;
    if (!durable_ended) durable += block.durable_watermark;
    watermark_ended = watermark_ended || block.watermark < shard_tokens;
    durable_ended = durable_ended || block.durable_watermark < shard_tokens;
  }
};

LayerDescription MergeLayer(const SessionInfo& info, uint32_t layer,
                            std::span<const ShardDescription> shards) {
  std::map<uint32_t, HeadProgress> heads;
  for (uint32_t head = 0; head < info.fingerprint.kv_heads; ++head) heads[head];
  for (const ShardDescription& shard : shards) {
    if (shard.shard.layer != layer || shard.description.layers.empty()) continue;
    heads[shard.shard.kv_head].Add(shard.description.layers.front(), info.replication.shard_tokens);
  }
  LayerDescription merged{.layer = layer,
                          .watermark = kNoLimit,
                          .indexed_tokens = kNoLimit,
                          .tail_tokens = 0,
                          .durable_watermark = kNoLimit};
  for (const auto& [head, progress] : heads) {
    merged.watermark = std::min(merged.watermark, progress.watermark);
    merged.durable_watermark = std::min(merged.durable_watermark, progress.durable);
    merged.indexed_tokens = std::min(merged.indexed_tokens, progress.indexed);
  }
  merged.indexed_tokens = std::min(merged.indexed_tokens, merged.watermark);
  merged.tail_tokens = merged.watermark - merged.indexed_tokens;
  return merged;
}

}  // namespace

SessionDescription MergeDescriptions(const SessionInfo& info, const SessionDescription& manifest,
                                     std::span<const ShardDescription> shards) {
  std::vector<ShardDescription> ordered(shards.begin(), shards.end());
  std::sort(ordered.begin(), ordered.end(),
            [](const auto& a, const auto& b) { return a.shard < b.shard; });
  SessionDescription merged = manifest;
  merged.layers.clear();
  merged.watermark = merged.durable_watermark = kNoLimit;
  for (const uint32_t layer : info.layers) {
    merged.layers.push_back(MergeLayer(info, layer, ordered));
    merged.watermark = std::min(merged.watermark, merged.layers.back().watermark);
    merged.durable_watermark =
        std::min(merged.durable_watermark, merged.layers.back().durable_watermark);
  }
  merged.memory_bytes = merged.evicted_bytes = 0;
  merged.reused_tokens = ordered.empty() ? 0 : kNoLimit;
  for (const ShardDescription& shard : ordered) {
    const SessionDescription& one = shard.description;
    merged.memory_bytes += one.memory_bytes;
    merged.evicted_bytes += one.evicted_bytes;
    merged.reused_tokens = std::min(merged.reused_tokens, one.reused_tokens);
    merged.lease_seconds_left = std::min(merged.lease_seconds_left, one.lease_seconds_left);
  }
  return merged;
}

}  // namespace attic
