#include "client/cpp/cluster/shard_batches.h"

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

absl::Status CheckBytes(const char* field, size_t bytes, size_t expected) {
  if (bytes == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", bytes, " bytes, the session needs ", expected));
}

absl::Status CheckBatch(const SessionInfo& info, const AppendBatch& batch, const Limits& limits) {
  const Fingerprint& f = info.fingerprint;
  if (!info.Stores(batch.layer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer: ", batch.layer, " is not among the session's stored layers"));
  }
  if (batch.count == 0) return absl::InvalidArgumentError("count: must not be 0");
  if (batch.count > limits.append_tokens_max) {
    return absl::ResourceExhaustedError(absl::StrCat("count: ", batch.count,
                                                     " is over the limit append_tokens_max of ",
                                                     limits.append_tokens_max));
  }
  if (batch.begin_position < 0) {
    return absl::InvalidArgumentError("begin_position: must not be negative");
  }
  if (batch.begin_position > limits.session_tokens_max - static_cast<int64_t>(batch.count)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "begin_position: over the limit session_tokens_max of ", limits.session_tokens_max));
  }
  const size_t row = batch.count * f.kv_heads * ElementBytes(f.element_type);
  ATTIC_RETURN_IF_ERROR(CheckBytes("keys", batch.keys.size(), row * f.head_dim));
  ATTIC_RETURN_IF_ERROR(CheckBytes("values", batch.values.size(), row * f.value_dim));
  const size_t sample = size_t{f.q_heads} * f.head_dim;
  if (batch.query_sample.size() % sample != 0) {
    return absl::InvalidArgumentError("query_sample: no whole number of (q_heads, head_dim)");
  }
  if (batch.query_sample.size() / f.head_dim > limits.query_sample_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("query_sample: over the limit query_sample_max of ", limits.query_sample_max));
  }
  return absl::OkStatus();
}

// Rows [begin, begin + count) of one head of (tokens, kv_heads, row_bytes).
std::string HeadRows(std::span<const std::byte> rows, size_t kv_heads, size_t head,
                     size_t row_bytes, size_t begin, size_t count) {
  std::string out(count * row_bytes, '\0');
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(out.data() + i * row_bytes,
                rows.data() + ((begin + i) * kv_heads + head) * row_bytes, row_bytes);
  }
  return out;
}

}  // namespace

absl::StatusOr<std::vector<ShardAppend>> SplitBatch(const SessionInfo& info,
                                                    const AppendBatch& batch,
                                                    const Limits& limits) {
  ATTIC_RETURN_IF_ERROR(CheckBatch(info, batch, limits));
  const Fingerprint& f = info.fingerprint;
  const size_t element = ElementBytes(f.element_type);
  const int64_t end = batch.begin_position + static_cast<int64_t>(batch.count);
  const std::vector<BlockStretch> blocks =
      BlocksOf(info.replication.shard_tokens, {.begin = batch.begin_position, .end = end});
  if (blocks.empty() || blocks.back().range.end != end) {
    return absl::ResourceExhaustedError(
        absl::StrCat("begin_position: over the limit of ", kShardBlocksMax, " blocks"));
  }
  const std::span<const std::byte> samples = std::as_bytes(batch.query_sample);
  const size_t sample_row = size_t{f.group()} * f.head_dim * sizeof(float);
  const size_t sample_count = batch.query_sample.size() / f.q_heads / f.head_dim;
  std::vector<ShardAppend> appends;
  for (const BlockStretch& block : blocks) {
    const auto first = static_cast<size_t>(block.range.begin - batch.begin_position);
    const auto count = static_cast<size_t>(block.range.end - block.range.begin);
    for (uint32_t head = 0; head < f.kv_heads; ++head) {
      ShardAppend append{.shard = {.layer = batch.layer, .kv_head = head, .block = block.block},
                         .block_begin = block.block_begin,
                         .request = {}};
      v1::AppendRequest& request = append.request;
      request.set_session_id(ShardSessionId(info.session_id, append.shard));
      request.set_layer(batch.layer);
      request.set_begin_position(block.local().begin);
      request.set_count(static_cast<uint32_t>(count));
      request.set_keys(HeadRows(batch.keys, f.kv_heads, head, f.head_dim * element, first, count));
      request.set_values(
          HeadRows(batch.values, f.kv_heads, head, f.value_dim * element, first, count));
      if (block.block == blocks.back().block) {
        request.set_query_sample(HeadRows(samples, f.kv_heads, head, sample_row, 0, sample_count));
      }
      appends.push_back(std::move(append));
    }
  }
  return appends;
}

}  // namespace attic
