#include "gpu_worker/backend/causal_attention.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/exact_attention.h"
#include "attention/partial_attention.h"
#include "attention/vector_kernels.h"

namespace attic::worker {
namespace {

constexpr size_t kBlockQueries = 64;
constexpr size_t kBlockKeys = 256;

// Consecutive keys; the key of row r has position first_position + r.
struct KeyRun {
  const float* keys;
  const float* values;
  int64_t first_position;
  int64_t count;
};

VectorsView View(const float* rows, int64_t count, size_t dim) {
  return {reinterpret_cast<const std::byte*>(rows), ElementType::kFloat32,
          static_cast<size_t>(count), dim};
}

// Running sums of one block of queries of one head: unnormalised output rows, their maxima and
// denominators.
class QueryBlock {
 public:
  QueryBlock(const AttentionShape& shape, const float* queries, size_t count,
             int64_t first_position)
      : shape_(shape),
        queries_(queries),
        count_(count),
        first_position_(first_position),
        scores_(count * kBlockKeys),
        sums_(count * shape.head_dim),
        maxima_(count, kEmptyLogSumExp),
        denominators_(count) {}

  void Add(const KeyRun& run) {
    const int64_t last_position = first_position_ + static_cast<int64_t>(count_) - 1;
    const int64_t visible =
        std::clamp<int64_t>(last_position + 1 - run.first_position, 0, run.count);
    for (int64_t row = 0; row < visible; row += kBlockKeys) {
      AddKeys(run, row, std::min<int64_t>(kBlockKeys, visible - row));
    }
  }

  // Row i of the block goes to rows `stride` query heads apart.
  void Finish(size_t stride, float* output, float* log_sum_exp) const {
    const size_t dim = shape_.head_dim;
    for (size_t i = 0; i < count_; ++i) {
      const bool empty = denominators_[i] == 0.0;
      const float factor = empty ? 0.0f : static_cast<float>(1.0 / denominators_[i]);
      for (size_t j = 0; j < dim; ++j) output[i * stride * dim + j] = sums_[i * dim + j] * factor;
      log_sum_exp[i * stride] =
          empty ? kEmptyLogSumExp : maxima_[i] + static_cast<float>(std::log(denominators_[i]));
    }
  }

 private:
  void AddKeys(const KeyRun& run, int64_t row, int64_t count) {
    const int dim = static_cast<int>(shape_.head_dim);
    const int queries = static_cast<int>(count_);
    const int keys = static_cast<int>(count);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, queries, keys, dim, shape_.logit_scale,
                queries_, static_cast<int>(shape_.query_floats()), run.keys + row * dim, dim, 0.0f,
                scores_.data(), keys);
    for (size_t i = 0; i < count_; ++i) {
      const int64_t position = first_position_ + static_cast<int64_t>(i);
      const int64_t visible =
          std::clamp<int64_t>(position + 1 - run.first_position - row, 0, count);
      Weigh(i, {scores_.data() + i * count, static_cast<size_t>(count)},
            static_cast<size_t>(visible));
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, queries, dim, keys, 1.0f, scores_.data(),
                keys, run.values + row * dim, dim, 1.0f, sums_.data(), dim);
  }

  // Turns query i's scores into weights relative to its running maximum.
  void Weigh(size_t i, std::span<float> scores, size_t visible) {
    std::fill(scores.begin() + visible, scores.end(), 0.0f);
    if (visible == 0) return;
    const std::span<float> seen = scores.first(visible);
    const float maximum = std::max(maxima_[i], MaxElement(seen));
    const float shrink = std::exp(maxima_[i] - maximum);
    maxima_[i] = maximum;
    float* sums = sums_.data() + i * shape_.head_dim;
    if (shrink != 1.0f) std::for_each_n(sums, shape_.head_dim, [&](float& x) { x *= shrink; });
    denominators_[i] = denominators_[i] * shrink + ExpInPlace(maximum, seen);
  }

  const AttentionShape& shape_;
  const float* queries_;
  size_t count_;
  int64_t first_position_;
  std::vector<float> scores_;  // (count, keys of the product)
  std::vector<float> sums_;    // (count, head_dim)
  std::vector<float> maxima_;
  std::vector<double> denominators_;
};

}  // namespace

void AttendOneToken(const AttentionShape& shape, size_t kv_head, const CausalKeys& keys,
                    const CausalQueries& queries) {
  const size_t group = shape.group();
  const size_t dim = shape.head_dim;
  const size_t first_head = kv_head * group;
  const float* group_queries = queries.queries + first_head * dim;
  std::vector<AttentionAccumulator> accumulators(group, AttentionAccumulator(dim));
  ScanScratch scratch;
  const int64_t position = queries.first_position;
  const int64_t sink = std::min(keys.sink_count, position + 1);
  const int64_t window =
      std::clamp<int64_t>(position + 1 - keys.window_begin, 0, keys.window_count);
  if (sink > 0) {
    ScanExact(group_queries, shape.logit_scale, View(keys.sink_keys, sink, dim),
              View(keys.sink_values, sink, dim), accumulators, scratch);
  }
  if (window > 0) {
    ScanExact(group_queries, shape.logit_scale, View(keys.window_keys, window, dim),
              View(keys.window_values, window, dim), accumulators, scratch);
  }
  for (size_t g = 0; g < group; ++g) {
    const size_t row = first_head + g;
    queries.log_sum_exp[row] = accumulators[g].Finish({queries.output + row * dim, dim});
  }
}

void AttendManyTokens(const AttentionShape& shape, size_t q_head, const CausalKeys& keys,
                      const CausalQueries& queries) {
  for (size_t t = 0; t < queries.count; t += kBlockQueries) {
    const size_t row = t * shape.q_heads + q_head;
    QueryBlock block(shape, queries.queries + row * shape.head_dim,
                     std::min(kBlockQueries, queries.count - t),
                     queries.first_position + static_cast<int64_t>(t));
    block.Add({keys.sink_keys, keys.sink_values, 0, keys.sink_count});
    block.Add({keys.window_keys, keys.window_values, keys.window_begin, keys.window_count});
    block.Finish(shape.q_heads, queries.output + row * shape.head_dim, queries.log_sum_exp + row);
  }
}

}  // namespace attic::worker
