#include "client/cpp/cluster/snapshot_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace attic {

absl::StatusOr<SnapshotLayout> SnapshotLayout::Make(const SessionInfo& info,
                                                    const SessionDescription& session,
                                                    const Limits& limits) {
  SnapshotLayout layout;
  layout.kv_heads_ = info.fingerprint.kv_heads;
  layout.shard_tokens_ = info.replication.shard_tokens;
  if (session.layers.size() > limits.layers_max || layout.kv_heads_ > limits.q_heads_max) {
    return absl::ResourceExhaustedError("snapshot: it has more layers or heads than there may be");
  }
  for (const LayerDescription& one : session.layers) {
    if (one.watermark < 0 || one.layer >= info.fingerprint.layers ||
        (!layout.layers_.empty() && layout.layers_.back().layer >= one.layer)) {
      return absl::DataLossError("snapshot: its layers make no sense");
    }
    if (one.watermark > limits.session_tokens_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat("snapshot: layer ", one.layer, " has ", one.watermark,
                       " positions, session_tokens_max is ", limits.session_tokens_max));
    }
    uint64_t blocks = 1;
    if (layout.shard_tokens_ > 0) {
      const int64_t tokens = layout.shard_tokens_;
      blocks = std::max<uint64_t>(
          1, static_cast<uint64_t>(one.watermark / tokens) + (one.watermark % tokens > 0 ? 1 : 0));
    }
    layout.size_ += std::min<uint64_t>(blocks, kSnapshotShardsMax + 1) * layout.kv_heads_;
    if (layout.size_ > kSnapshotShardsMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("snapshot: it has more than ", kSnapshotShardsMax, " shards"));
    }
    layout.layers_.push_back(
        {.layer = one.layer, .positions = one.watermark, .blocks = static_cast<uint32_t>(blocks)});
  }
  return layout;
}

SnapshotShard SnapshotLayout::Get() const {
  ATTIC_CHECK(!AtEnd());
  const Layer& layer = layers_[layer_];
  SnapshotShard one{.shard = {.layer = layer.layer, .kv_head = kv_head_, .block = block_},
                    .positions = layer.positions};
  if (shard_tokens_ > 0) {
    one.positions = std::min(shard_tokens_, layer.positions - block_ * shard_tokens_);
  }
  return one;
}

void SnapshotLayout::Next() {
  ATTIC_CHECK(!AtEnd());
  ++index_;
  if (++kv_head_ < kv_heads_) return;
  kv_head_ = 0;
  if (++block_ < layers_[layer_].blocks) return;
  block_ = 0;
  ++layer_;
}

std::vector<SnapshotShard> SnapshotLayout::Take(size_t count) {
  std::vector<SnapshotShard> shards;
  for (; shards.size() < count && !AtEnd(); Next()) shards.push_back(Get());
  return shards;
}

}  // namespace attic
