// Exact attention over contiguous keys and values.
#ifndef ATTIC_ATTENTION_EXACT_ATTENTION_H_
#define ATTIC_ATTENTION_EXACT_ATTENTION_H_

#include <cstddef>
#include <span>
#include <vector>

#include "attention/element_type.h"
#include "attention/partial_attention.h"

namespace attic {

// Buffers reused between calls by one thread, so that scans do not allocate. Not thread-safe.
struct ScanScratch {
  std::vector<float> scores;
};

// Adds every (key, value) row to the accumulators of the query heads of a group, in one pass over
// the rows (blocks of kScanBlockTokens).
//   queries: (accumulators.size(), keys.dim) float32; logits are logit_scale * q.k
//   keys: (tokens, head_dim), values: (tokens, value_dim), keys.count == values.count
void ScanExact(const float* queries, float logit_scale, const VectorsView& keys,
               const VectorsView& values, std::span<AttentionAccumulator> accumulators,
               ScanScratch& scratch);

inline constexpr size_t kScanBlockTokens = 256;

// The oracle: one query, everything in double, two plain loops. For tests and calibration.
// output has values.dim elements. Returns log_sum_exp, kEmptyLogSumExp when keys is empty.
double ReferenceAttention(std::span<const float> query, double logit_scale, const VectorsView& keys,
                          const VectorsView& values, std::span<double> output);

}  // namespace attic

#endif  // ATTIC_ATTENTION_EXACT_ATTENTION_H_
