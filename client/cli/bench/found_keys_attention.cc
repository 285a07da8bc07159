#include "client/cli/bench/found_keys_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention/vector_kernels.h"
#include "base/check.h"

namespace attic::cli {

double FoundKeysAttention::Attend(std::span<const ScoredNode> found, double logit_scale,
                                  const VectorsView& values, std::span<float> output) {
  ATTIC_CHECK(!found.empty() && output.size() == values.dim);
  const size_t row_bytes = values.row_bytes();
  rows_.resize(found.size() * row_bytes);
  weights_.resize(found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    std::memcpy(rows_.data() + i * row_bytes, values.row(found[i].node), row_bytes);
    weights_[i] = static_cast<float>(logit_scale * found[i].score);
  }
  const float shift = MaxElement(weights_);
  const float sum = ExpInPlace(shift, weights_);
  for (float& weight : weights_) weight /= sum;
  std::ranges::fill(output, 0.0f);
  AddWeightedVectors(weights_.data(), 1, {rows_.data(), values.type, found.size(), values.dim},
                     output.data());
  return shift + std::log(static_cast<double>(sum));
}

}  // namespace attic::cli
