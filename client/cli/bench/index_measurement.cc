#include "client/cli/bench/index_measurement.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace attic::cli {

double Recall(const BenchData& data, const ExactAnswers& exact, size_t i,
              std::span<const uint32_t> found) {
  const std::unordered_set<uint32_t> nodes(found.begin(),
                                           found.begin() + std::min(found.size(), data.k));
  size_t hits = 0;
  for (const ScoredNode& node : std::span(exact.best).subspan(i * data.k, data.k)) {
    hits += nodes.count(node.node);
  }
  return static_cast<double>(hits) / data.k;
}

double OutputError(const BenchData& data, const ExactAnswers& exact, size_t i,
                   std::span<const float> output) {
  double difference = 0.0, norm = 0.0;
  for (size_t d = 0; d < data.value_dim(); ++d) {
    const double truth = exact.output[i * data.value_dim() + d];
    difference += (output[d] - truth) * (output[d] - truth);
    norm += truth * truth;
  }
  if (norm == 0.0) return difference == 0.0 ? 0.0 : 1.0;
  return std::sqrt(difference / norm);
}

}  // namespace attic::cli
