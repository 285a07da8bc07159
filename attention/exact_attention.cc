#include "attention/exact_attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "attention/vector_kernels.h"
#include "base/check.h"

namespace attic {
namespace {

// Query heads of one group scanned together; larger groups pass over the block again while it is
// still in the cache.
constexpr size_t kQueriesAtOnce = 16;

void ScanBlock(const float* queries, float logit_scale, const VectorsView& keys,
               const VectorsView& values, std::span<AttentionAccumulator> accumulators,
               float* scores) {
  ScoreVectors(queries, accumulators.size(), keys, scores);
  std::array<float*, kQueriesAtOnce> numerators;
  for (size_t g = 0; g < accumulators.size(); ++g) {
    const std::span<float> logits(scores + g * keys.count, keys.count);
    const float max_logit = accumulators[g].RaiseMax(ScaleLogits(logit_scale, logits));
    accumulators[g].AddWeight(ExpInPlace(max_logit, logits));
    numerators[g] = accumulators[g].numerator().data();
  }
  AddWeightedVectors(scores, values, std::span(numerators.data(), accumulators.size()));
}

}  // namespace

void ScanExact(const float* queries, float logit_scale, const VectorsView& keys,
               const VectorsView& values, std::span<AttentionAccumulator> accumulators,
               ScanScratch& scratch) {
  ATTIC_CHECK(keys.count == values.count);
  for (AttentionAccumulator& accumulator : accumulators) {
    ATTIC_CHECK(accumulator.numerator().size() == values.dim);
  }
  if (scratch.scores.size() < kQueriesAtOnce * kScanBlockTokens) {
    scratch.scores.resize(kQueriesAtOnce * kScanBlockTokens);
  }
  for (size_t begin = 0; begin < keys.count; begin += kScanBlockTokens) {
    const size_t count = std::min(kScanBlockTokens, keys.count - begin);
    for (size_t g = 0; g < accumulators.size(); g += kQueriesAtOnce) {
      const size_t heads = std::min(kQueriesAtOnce, accumulators.size() - g);
      ScanBlock(queries + g * keys.dim, logit_scale, keys.rows(begin, count),
                values.rows(begin, count), accumulators.subspan(g, heads), scratch.scores.data());
    }
  }
}

double ReferenceAttention(std::span<const float> query, double logit_scale, const VectorsView& keys,
                          const VectorsView& values, std::span<double> output) {
  ATTIC_CHECK(query.size() == keys.dim && output.size() == values.dim);
  ATTIC_CHECK(keys.count == values.count);
  std::fill(output.begin(), output.end(), 0.0);
  if (keys.count == 0) return kEmptyLogSumExp;
  std::vector<double> logits(keys.count);
  std::vector<float> row(std::max(keys.dim, values.dim));
  for (size_t i = 0; i < keys.count; ++i) {
    ToFloat32(keys.row(i), keys.type, std::span(row.data(), keys.dim));
    double score = 0;
    for (size_t j = 0; j < keys.dim; ++j) score += static_cast<double>(query[j]) * row[j];
    logits[i] = logit_scale * score;
  }
  const double max = *std::max_element(logits.begin(), logits.end());
  double denominator = 0;
  for (const double logit : logits) denominator += std::exp(logit - max);
  for (size_t i = 0; i < values.count; ++i) {
    ToFloat32(values.row(i), values.type, std::span(row.data(), values.dim));
    const double weight = std::exp(logits[i] - max) / denominator;
    for (size_t j = 0; j < values.dim; ++j) output[j] += weight * row[j];
  }
  return max + std::log(denominator);
}

}  // namespace attic
