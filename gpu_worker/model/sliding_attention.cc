#include "gpu_worker/model/sliding_attention.h"

#include <cblas.h>

#include <algorithm>

#include "attention/vector_kernels.h"

namespace attic::worker {
namespace {

// Queries of one matrix product. Larger blocks waste more of the products on keys outside the
// band (a block of B sees B + window - 1 keys), smaller ones pay more calls.
constexpr size_t kBlockQueries = 32;

}  // namespace

// The queries [begin, begin + count) of the chunk and one query head.
struct SlidingCache::Block {
  size_t begin;
  size_t count;
  size_t q_head;
  const float* queries;  // of the head, of token `begin`; rows query_floats() apart
  float* output;         // likewise
};

SlidingCache::SlidingCache(const AttentionShape& shape, size_t window)
    : shape_(shape), window_(window), rows_before_(window - 1) {
  Reserve(0);
}

void SlidingCache::Reserve(size_t tokens) {
  const size_t floats = (rows_before_ + tokens) * shape_.key_floats();
  if (keys_.size() >= floats) return;
  keys_.resize(floats);
  values_.resize(floats);
}

size_t SlidingCache::scratch_floats() const {
  return kBlockQueries * (kBlockQueries + window_ - 1);
}

void SlidingCache::Attend(size_t begin, size_t end, const float* queries, float* output,
                          float* scratch) const {
  for (size_t t = begin; t < end; t += kBlockQueries) {
    for (size_t h = 0; h < shape_.q_heads; ++h) {
      const size_t offset = (t - begin) * shape_.query_floats() + h * shape_.head_dim;
      AttendBlock({t, std::min(kBlockQueries, end - t), h, queries + offset, output + offset},
                  scratch);
    }
  }
}

void SlidingCache::AttendBlock(const Block& block, float* scratch) const {
  const int dim = static_cast<int>(shape_.head_dim);
  const int key_stride = static_cast<int>(shape_.key_floats());
  const int query_stride = static_cast<int>(shape_.query_floats());
  const int queries = static_cast<int>(block.count);
  // Token t of the chunk is row rows_before_ + t, so its band is rows [t, t + window).
  const size_t first_row = std::max(block.begin, rows_before_ - held_);
  const size_t rows = block.begin + block.count + rows_before_ - first_row;
  const size_t offset =
      first_row * shape_.key_floats() + block.q_head / shape_.group() * shape_.head_dim;
  const int span = static_cast<int>(rows);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, queries, span, dim, shape_.logit_scale,
              block.queries, query_stride, keys_.data() + offset, key_stride, 0.0f, scratch, span);
  for (size_t i = 0; i < block.count; ++i) {
    float* row = scratch + i * rows;
    const size_t begin = std::max(block.begin + i, first_row) - first_row;
    const size_t end = block.begin + i + window_ - first_row;
    const std::span<float> band(row + begin, end - begin);
    const float sum = ExpInPlace(MaxElement(band), band);
    const float factor = 1.0f / sum;
    for (float& weight : band) weight *= factor;
    std::fill(row, row + begin, 0.0f);
    std::fill(row + end, row + rows, 0.0f);
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, queries, dim, span, 1.0f, scratch, span,
              values_.data() + offset, key_stride, 0.0f, block.output, query_stride);
}

void SlidingCache::Advance(size_t tokens) {
  // Rows move towards the front, so a forward copy is right even where source and target overlap.
  const size_t shift = tokens * shape_.key_floats();
  const size_t kept = rows_before_ * shape_.key_floats();
  std::copy_n(keys_.begin() + shift, kept, keys_.begin());
  std::copy_n(values_.begin() + shift, kept, values_.begin());
  held_ = std::min(rows_before_, held_ + tokens);
}

SlidingCache SlidingCache::Fork() const {
  SlidingCache copy(shape_, window_);
  std::copy_n(keys_.begin(), copy.keys_.size(), copy.keys_.begin());
  std::copy_n(values_.begin(), copy.values_.size(), copy.values_.begin());
  copy.held_ = held_;
  return copy;
}

}  // namespace attic::worker
