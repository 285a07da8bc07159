#include "gpu_worker/backend/cpu_local_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention/partial_attention.h"
#include "base/check.h"

namespace attic::worker {
namespace {

// Up to this many tokens are attended one by one; more by matrix products.
constexpr size_t kSingleTokensMax = 8;

}  // namespace

// The window may slide by its own length before its rows are moved to the front.
CpuLocalCache::CpuLocalCache(const LocalCacheOptions& options, ThreadPool& pool)
    : options_(options),
      pool_(pool),
      capacity_(static_cast<size_t>(2 * options.window_tokens + options.step_tokens_max)),
      window_begin_(options.sink_tokens),
      layers_(options.layers) {
  const size_t rows = static_cast<size_t>(options.sink_tokens) + capacity_;
  for (Layer& layer : layers_) {
    layer.keys.resize(rows * options.shape.key_floats());
    layer.values.resize(rows * options.shape.key_floats());
  }
}

CpuLocalCache::~CpuLocalCache() {
  MutexLock lock(mutex_);
  while (running_) finished_.Wait(mutex_);
}

size_t CpuLocalCache::RowOf(int64_t position) const {
  if (position < options_.sink_tokens) return static_cast<size_t>(position);
  return static_cast<size_t>(options_.sink_tokens + position - window_begin_) + window_row_;
}

absl::Status CpuLocalCache::Append(size_t layer_index, size_t count,
                                   std::span<const std::byte> keys,
                                   std::span<const std::byte> values) {
  const AttentionShape& shape = options_.shape;
  const size_t dim = shape.head_dim;
  const size_t row_bytes = dim * ElementBytes(options_.element_type);
  ATTIC_CHECK(layer_index < layers_.size());
  ATTIC_CHECK(keys.size() == count * shape.kv_heads * row_bytes && values.size() == keys.size());
  Layer& layer = layers_[layer_index];
  const int64_t end = layer.tokens + static_cast<int64_t>(count);
  if (end - window_begin_ > options_.window_tokens + options_.step_tokens_max) {
    return absl::ResourceExhaustedError(absl::StrCat("a step appends more than step_tokens_max (",
                                                     options_.step_tokens_max,
                                                     ") tokens to a full window"));
  }
  const size_t rows = static_cast<size_t>(options_.sink_tokens) + capacity_;
  if (end > options_.sink_tokens && RowOf(end - 1) >= rows) MoveWindowToFront();
  for (size_t t = 0; t < count; ++t) {
    const size_t row = RowOf(layer.tokens + static_cast<int64_t>(t));
    for (size_t h = 0; h < shape.kv_heads; ++h) {
      const size_t source = (t * shape.kv_heads + h) * row_bytes;
      const size_t target = (h * rows + row) * dim;
      ToFloat32(keys.data() + source, options_.element_type, {layer.keys.data() + target, dim});
      ToFloat32(values.data() + source, options_.element_type, {layer.values.data() + target, dim});
    }
  }
  layer.tokens = end;
  return absl::OkStatus();
}

void CpuLocalCache::MoveWindowToFront() {
  const size_t dim = options_.shape.head_dim;
  const size_t sink = static_cast<size_t>(options_.sink_tokens);
  for (Layer& layer : layers_) {
    const size_t used = static_cast<size_t>(std::max<int64_t>(0, layer.tokens - window_begin_));
    for (size_t h = 0; h < options_.shape.kv_heads; ++h) {
      const size_t front = (h * (sink + capacity_) + sink) * dim;
      const size_t from = front + window_row_ * dim;
      std::copy_n(layer.keys.begin() + from, used * dim, layer.keys.begin() + front);
      std::copy_n(layer.values.begin() + from, used * dim, layer.values.begin() + front);
    }
  }
  window_row_ = 0;
}

CausalKeys CpuLocalCache::KeysOf(const Layer& layer, size_t kv_head) const {
  const size_t dim = options_.shape.head_dim;
  const size_t sink = static_cast<size_t>(options_.sink_tokens);
  const size_t base = kv_head * (sink + capacity_) * dim;
  const size_t window = base + (sink + window_row_) * dim;
  return {.sink_keys = layer.keys.data() + base,
          .sink_values = layer.values.data() + base,
          .sink_count = std::min(layer.tokens, options_.sink_tokens),
          .window_keys = layer.keys.data() + window,
          .window_values = layer.values.data() + window,
          .window_begin = window_begin_,
          .window_count = std::max<int64_t>(0, layer.tokens - window_begin_)};
}

absl::Status CpuLocalCache::StartAttend(size_t layer, size_t count, const float* queries) {
  ATTIC_CHECK(layer < layers_.size() && static_cast<int64_t>(count) <= layers_[layer].tokens);
  {
    MutexLock lock(mutex_);
    ATTIC_CHECK(!running_);
    running_ = true;
  }
  const size_t floats = count * options_.shape.query_floats();
  work_.layer = layer;
  work_.count = count;
  work_.queries.assign(queries, queries + floats);
  work_.output.resize(floats);
  work_.log_sum_exp.resize(count * options_.shape.q_heads);
  pool_.Schedule([this] { RunAttend(); });
  return absl::OkStatus();
}

void CpuLocalCache::RunAttend() {
  const AttentionShape& shape = options_.shape;
  const Layer& layer = layers_[work_.layer];
  const int64_t first = layer.tokens - static_cast<int64_t>(work_.count);
  const CausalQueries all{work_.queries.data(), work_.count, first, work_.output.data(),
                          work_.log_sum_exp.data()};
  if (work_.count <= kSingleTokensMax) {
    for (size_t t = 0; t < work_.count; ++t) {
      const CausalQueries one{
          all.queries + t * shape.query_floats(), 1, first + static_cast<int64_t>(t),
          all.output + t * shape.query_floats(), all.log_sum_exp + t * shape.q_heads};
      for (size_t h = 0; h < shape.kv_heads; ++h) AttendOneToken(shape, h, KeysOf(layer, h), one);
    }
  } else {
    pool_.ParallelFor(shape.q_heads, [&](size_t h) {
      AttendManyTokens(shape, h, KeysOf(layer, h / shape.group()), all);
    });
  }
  MutexLock lock(mutex_);
  running_ = false;
  finished_.NotifyAll();
}

absl::Status CpuLocalCache::FinishAttend(const PartialView& other, float* output,
                                         float* log_sum_exp) {
  {
    MutexLock lock(mutex_);
    while (running_) finished_.Wait(mutex_);
  }
  const size_t dim = options_.shape.head_dim;
  std::copy(work_.output.begin(), work_.output.end(), output);
  std::copy(work_.log_sum_exp.begin(), work_.log_sum_exp.end(), log_sum_exp);
  if (other.output == nullptr) return absl::OkStatus();
  for (size_t row = 0; row < work_.log_sum_exp.size(); ++row) {
    MergePartialAttention({other.output + row * dim, dim}, other.log_sum_exp[row],
                          {output + row * dim, dim}, log_sum_exp[row]);
  }
  return absl::OkStatus();
}

void CpuLocalCache::DropWindowBefore(int64_t position) {
  if (position <= window_begin_) return;
  window_row_ += static_cast<size_t>(position - window_begin_);
  window_begin_ = position;
  ATTIC_CHECK(window_row_ <= capacity_);
}

void CpuLocalCache::SkipTo(int64_t position) {
  ATTIC_CHECK(position >= options_.sink_tokens);
  for (Layer& layer : layers_) {
    ATTIC_CHECK(layer.tokens == options_.sink_tokens);
    layer.tokens = position;
  }
  window_begin_ = position;
  window_row_ = 0;
}

absl::StatusOr<std::unique_ptr<LocalCache>> CpuLocalCache::Fork() const {
  auto copy = std::make_unique<CpuLocalCache>(options_, pool_);
  copy->window_row_ = window_row_;
  copy->window_begin_ = window_begin_;
  copy->layers_ = layers_;
  return copy;
}

}  // namespace attic::worker
