// attic bench vectors: the indexes of the store and their peers on the keys, values and queries of
// one head, given as .npy files.
#ifndef ATTIC_CLIENT_CLI_BENCH_BENCH_VECTORS_H_
#define ATTIC_CLIENT_CLI_BENCH_BENCH_VECTORS_H_

#include <cstddef>
#include <ostream>
#include <vector>

#include "absl/status/status.h"
#include "client/cli/bench/bench_data.h"

namespace attic::cli {

struct VectorsBenchOptions {
  BenchDataOptions data;
  std::vector<size_t> widths;  // ef of the graphs; empty: k, 2k, 4k and 8k
  bool json = false;
  bool show_progress = true;  // on stderr, and only when that is a terminal
};

// Runs the comparison, which takes as long as building the indexes (minutes at a million keys), and
// writes a table, or with options.json one JSON object, to `out`. INVALID_ARGUMENT names the file
// or option at fault.
absl::Status BenchVectors(const VectorsBenchOptions& options, std::ostream& out);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_BENCH_VECTORS_H_
