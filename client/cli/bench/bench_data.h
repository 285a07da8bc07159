// The input of `attic bench vectors`: keys, values and queries of one head, and the exact answers.
#ifndef ATTIC_CLIENT_CLI_BENCH_BENCH_DATA_H_
#define ATTIC_CLIENT_CLI_BENCH_BENCH_DATA_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/bench/npy_file.h"
#include "server/index/graph/exact_neighbors.h"

namespace attic::cli {

struct BenchDataOptions {
  std::string queries_path;
  std::string keys_path;
  std::string values_path;
  size_t train = 2000;       // queries that teach the indexes: the first rows
  size_t test = 200;         // queries measured: at most that many of the rows after them
  size_t k = 100;            // of recall@k
  double logit_scale = 0.0;  // 0: 1/sqrt(head_dim)
};

struct BenchData {
  NpyMatrix keys;            // (tokens, head_dim)
  NpyMatrix values;          // (tokens, value_dim)
  std::vector<float> train;  // (train_count, head_dim)
  std::vector<float> test;   // (test_count, head_dim)
  size_t k = 0;              // at most the number of keys
  double logit_scale = 0.0;

  size_t head_dim() const { return keys.header.columns; }
  size_t value_dim() const { return values.header.columns; }
  size_t key_count() const { return keys.header.rows; }
  size_t train_count() const { return train.size() / head_dim(); }
  size_t test_count() const { return test.size() / head_dim(); }
  const float* test_query(size_t i) const { return test.data() + i * head_dim(); }
};

// Reads and checks the three files. INVALID_ARGUMENT names the file or option at fault: shapes and
// element types that do not fit together, no query left to measure, k of 0.
absl::StatusOr<BenchData> LoadBenchData(const BenchDataOptions& options);

// Exact answers to the test queries, everything in double except the ranking.
struct ExactAnswers {
  std::vector<ScoredNode> best;     // (test_count, k), best first
  std::vector<double> output;       // (test_count, value_dim)
  std::vector<double> log_sum_exp;  // (test_count)
};

ExactAnswers ComputeExactAnswers(const BenchData& data);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_BENCH_DATA_H_
