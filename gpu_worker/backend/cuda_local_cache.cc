#include "gpu_worker/backend/cuda_local_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace attic::worker {

// The window may slide by its own length before its rows are moved to the front.
CudaLocalCache::CudaLocalCache(const LocalCacheOptions& options,
                               std::unique_ptr<DeviceStream> stream)
    : options_(options),
      capacity_(2 * options.window_tokens + options.step_tokens_max),
      window_begin_(options.sink_tokens),
      stream_(std::move(stream)),
      layers_(options.layers) {}

absl::StatusOr<std::unique_ptr<CudaLocalCache>> CudaLocalCache::Create(
    const LocalCacheOptions& options) {
  if (options.shape.head_dim > kDeviceHeadDimMax) {
    return absl::InvalidArgumentError(absl::StrCat("head_dim: ", options.shape.head_dim,
                                                   " is above kDeviceHeadDimMax (",
                                                   kDeviceHeadDimMax, ")"));
  }
  ATTIC_ASSIGN_OR_RETURN(std::unique_ptr<DeviceStream> stream, DeviceStream::Create());
  std::unique_ptr<CudaLocalCache> cache(new CudaLocalCache(options, std::move(stream)));
  const size_t bytes = static_cast<size_t>(cache->rows()) * cache->token_bytes();
  for (Layer& layer : cache->layers_) {
    ATTIC_RETURN_IF_ERROR(layer.keys.Reserve(bytes));
    ATTIC_RETURN_IF_ERROR(layer.values.Reserve(bytes));
  }
  return cache;
}

size_t CudaLocalCache::token_bytes() const {
  return options_.shape.key_floats() * ElementBytes(options_.element_type);
}

int64_t CudaLocalCache::RowOf(int64_t position) const {
  if (position < options_.sink_tokens) return position;
  return options_.sink_tokens + position - window_begin_ + window_row_;
}

int64_t CudaLocalCache::WindowTokens(const Layer& layer) const {
  return std::max<int64_t>(0, layer.tokens - window_begin_);
}

absl::Status CudaLocalCache::Append(size_t layer_index, size_t count,
                                    std::span<const std::byte> keys,
                                    std::span<const std::byte> values) {
  ATTIC_CHECK(layer_index < layers_.size());
  ATTIC_CHECK(keys.size() == count * token_bytes() && values.size() == keys.size());
  Layer& layer = layers_[layer_index];
  const int64_t end = layer.tokens + static_cast<int64_t>(count);
  if (end - window_begin_ > options_.window_tokens + options_.step_tokens_max) {
    return absl::ResourceExhaustedError(absl::StrCat("a step appends more than step_tokens_max (",
                                                     options_.step_tokens_max,
                                                     ") tokens to a full window"));
  }
  if (end > options_.sink_tokens && RowOf(end - 1) >= rows()) {
    ATTIC_RETURN_IF_ERROR(MoveWindowToFront());
  }
  // Tokens of the sink and of the window are each one run of rows.
  const int64_t sink =
      std::clamp<int64_t>(options_.sink_tokens - layer.tokens, 0, static_cast<int64_t>(count));
  const std::pair<int64_t, int64_t> runs[] = {{0, sink}, {sink, static_cast<int64_t>(count)}};
  for (const auto& [begin, run_end] : runs) {
    if (begin == run_end) continue;
    const size_t source = static_cast<size_t>(begin) * token_bytes();
    const size_t bytes = static_cast<size_t>(run_end - begin) * token_bytes();
    const size_t target = static_cast<size_t>(RowOf(layer.tokens + begin)) * token_bytes();
    ATTIC_RETURN_IF_ERROR(
        stream_->CopyToDevice(layer.keys.data() + target, keys.data() + source, bytes));
    ATTIC_RETURN_IF_ERROR(
        stream_->CopyToDevice(layer.values.data() + target, values.data() + source, bytes));
  }
  layer.tokens = end;
  return absl::OkStatus();
}

absl::Status CudaLocalCache::MoveRows(const DeviceBuffer& buffer, int64_t from, int64_t to,
                                      int64_t count) {
  // In pieces as long as the distance, so that no copy overlaps its source.
  for (int64_t done = 0; done < count; done += from - to) {
    const int64_t piece = std::min(from - to, count - done);
    ATTIC_RETURN_IF_ERROR(
        stream_->CopyOnDevice(buffer.data() + static_cast<size_t>(to + done) * token_bytes(),
                              buffer.data() + static_cast<size_t>(from + done) * token_bytes(),
                              static_cast<size_t>(piece) * token_bytes()));
  }
  return absl::OkStatus();
}

absl::Status CudaLocalCache::MoveWindowToFront() {
  const int64_t front = options_.sink_tokens;
  for (Layer& layer : layers_) {
    const int64_t used = WindowTokens(layer);
    ATTIC_RETURN_IF_ERROR(MoveRows(layer.keys, front + window_row_, front, used));
    ATTIC_RETURN_IF_ERROR(MoveRows(layer.values, front + window_row_, front, used));
  }
  window_row_ = 0;
  return absl::OkStatus();
}

absl::Status CudaLocalCache::StartAttend(size_t layer_index, size_t count, const float* queries) {
  ATTIC_CHECK(layer_index < layers_.size());
  const Layer& layer = layers_[layer_index];
  ATTIC_CHECK(static_cast<int64_t>(count) <= layer.tokens);
  const AttentionShape& shape = options_.shape;
  const size_t query_bytes = count * shape.query_floats() * sizeof(float);
  ATTIC_RETURN_IF_ERROR(queries_.Reserve(query_bytes));
  ATTIC_RETURN_IF_ERROR(output_.Reserve(query_bytes));
  ATTIC_RETURN_IF_ERROR(log_sum_exp_.Reserve(count * shape.q_heads * sizeof(float)));
  LocalAttention attention = {
      .q_heads = shape.q_heads,
      .kv_heads = shape.kv_heads,
      .head_dim = shape.head_dim,
      .logit_scale = shape.logit_scale,
      .keys = layer.keys.data(),
      .values = layer.values.data(),
      .element_type = options_.element_type,
      .sink_count = std::min(layer.tokens, options_.sink_tokens),
      .window_row = options_.sink_tokens + window_row_,
      .window_begin = window_begin_,
      .window_count = WindowTokens(layer),
      .queries = queries_.floats(),
      .count = static_cast<int64_t>(count),
      .first_position = layer.tokens - static_cast<int64_t>(count),
      .output = output_.floats(),
      .log_sum_exp = log_sum_exp_.floats(),
  };
  ATTIC_RETURN_IF_ERROR(
      workspace_.Reserve(LocalAttentionWorkspaceFloats(attention) * sizeof(float)));
  attention.workspace = workspace_.floats();
  ATTIC_RETURN_IF_ERROR(stream_->CopyToDevice(queries_.data(), queries, query_bytes));
  ATTIC_RETURN_IF_ERROR(LaunchLocalAttention(attention, stream_->handle()));
  started_count_ = count;
  return absl::OkStatus();
}

absl::Status CudaLocalCache::FinishAttend(const PartialView& other, float* output,
                                          float* log_sum_exp) {
  const AttentionShape& shape = options_.shape;
  const size_t rows = started_count_ * shape.q_heads;
  const size_t output_bytes = rows * shape.head_dim * sizeof(float);
  if (other.output != nullptr) {
    ATTIC_RETURN_IF_ERROR(other_output_.Reserve(output_bytes));
    ATTIC_RETURN_IF_ERROR(other_log_sum_exp_.Reserve(rows * sizeof(float)));
    ATTIC_RETURN_IF_ERROR(stream_->CopyToDevice(other_output_.data(), other.output, output_bytes));
    ATTIC_RETURN_IF_ERROR(
        stream_->CopyToDevice(other_log_sum_exp_.data(), other.log_sum_exp, rows * sizeof(float)));
    ATTIC_RETURN_IF_ERROR(LaunchMergePartials(
        other_output_.floats(), other_log_sum_exp_.floats(), static_cast<int64_t>(rows),
        shape.head_dim, output_.floats(), log_sum_exp_.floats(), stream_->handle()));
  }
  ATTIC_RETURN_IF_ERROR(stream_->CopyToHost(output, output_.data(), output_bytes));
  return stream_->CopyToHost(log_sum_exp, log_sum_exp_.data(), rows * sizeof(float));
}

void CudaLocalCache::DropWindowBefore(int64_t position) {
  if (position <= window_begin_) return;
  window_row_ += position - window_begin_;
  window_begin_ = position;
  ATTIC_CHECK(window_row_ <= capacity_);
}

void CudaLocalCache::SkipTo(int64_t position) {
  ATTIC_CHECK(position >= options_.sink_tokens);
  for (Layer& layer : layers_) {
    ATTIC_CHECK(layer.tokens == options_.sink_tokens);
    layer.tokens = position;
  }
  window_begin_ = position;
  window_row_ = 0;
}

absl::StatusOr<std::unique_ptr<LocalCache>> CudaLocalCache::Fork() const {
  ATTIC_RETURN_IF_ERROR(stream_->Synchronize());
  ATTIC_ASSIGN_OR_RETURN(std::unique_ptr<CudaLocalCache> copy, Create(options_));
  copy->window_row_ = window_row_;
  copy->window_begin_ = window_begin_;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& from = layers_[i];
    Layer& to = copy->layers_[i];
    to.tokens = from.tokens;
    ATTIC_RETURN_IF_ERROR(
        copy->stream_->CopyOnDevice(to.keys.data(), from.keys.data(), from.keys.bytes()));
    ATTIC_RETURN_IF_ERROR(
        copy->stream_->CopyOnDevice(to.values.data(), from.values.data(), from.values.bytes()));
  }
  // This cache may be written as soon as the copy exists.
  ATTIC_RETURN_IF_ERROR(copy->stream_->Synchronize());
  return copy;
}

}  // namespace attic::worker
