// What one index at one setting achieved on the test queries.
#ifndef ATTIC_CLIENT_CLI_BENCH_INDEX_MEASUREMENT_H_
#define ATTIC_CLIENT_CLI_BENCH_INDEX_MEASUREMENT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/cli/bench/bench_data.h"
#include "server/index/graph/exact_neighbors.h"

namespace attic::cli {

// Means over the test queries unless said; absent where it does not apply.
struct IndexMeasurement {
  std::string index;                         // "exact", "clustered", "query-aware graph", "hnswlib"
  std::string setting;                       // "scan", "attend", "ef 100", ...
  std::optional<double> recall;              // share of the exact best k among the k found
  std::optional<double> keys_share;          // vectors scored (keys, centroids), of the keys
  std::optional<double> bytes_share;         // bytes read, of those of all keys and values
  std::optional<double> coverage_estimated;  // as the index reports it
  std::optional<double> coverage_true;       // softmax mass of the keys attended exactly, of all
  std::optional<double> output_error;        // relative L2 against exact attention in double
  double build_seconds = 0.0;
  double query_ms = 0.0;  // median, one thread
};

// Share of the exact best k of test query `i` among the first k of `found`.
double Recall(const BenchData& data, const ExactAnswers& exact, size_t i,
              std::span<const uint32_t> found);

// |output - exact| / |exact| for test query `i`.
double OutputError(const BenchData& data, const ExactAnswers& exact, size_t i,
                   std::span<const float> output);

// Collects one value a query.
class Mean {
 public:
  void Add(double value) {
    sum_ += value;
    ++count_;
  }
  std::optional<double> value() const {
    return count_ == 0 ? std::nullopt : std::optional<double>(sum_ / count_);
  }

 private:
  double sum_ = 0.0;
  size_t count_ = 0;
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_INDEX_MEASUREMENT_H_
