// The indexes `attic bench vectors` compares. Each function builds one, puts the test queries to it
// one after the other on the calling thread, and says what it achieved.
#ifndef ATTIC_CLIENT_CLI_BENCH_MEASURED_INDEXES_H_
#define ATTIC_CLIENT_CLI_BENCH_MEASURED_INDEXES_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/bench/bench_data.h"
#include "client/cli/bench/index_measurement.h"

namespace attic::cli {

// Every key and value, in one pass.
std::vector<IndexMeasurement> MeasureExactScan(const BenchData& data, const ExactAnswers& exact);

// The store's index of clusters (HeadIndex in indexed mode, whatever the length): one measurement
// of attention, one of the search for the best k.
absl::StatusOr<std::vector<IndexMeasurement>> MeasureClustered(const BenchData& data,
                                                               const ExactAnswers& exact,
                                                               bool show_progress);

// The query-aware graph over all keys and, from the same base graph, hnswlib's own search, each at
// every width; attention runs over the keys found.
absl::StatusOr<std::vector<IndexMeasurement>> MeasureGraphs(const BenchData& data,
                                                            const ExactAnswers& exact,
                                                            const std::vector<size_t>& widths,
                                                            bool show_progress);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_MEASURED_INDEXES_H_
