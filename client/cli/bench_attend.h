// How long a session's attention takes, indexed and exact.
#ifndef ATTIC_CLIENT_CLI_BENCH_ATTEND_H_
#define ATTIC_CLIENT_CLI_BENCH_ATTEND_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "client/cli/progress.h"
#include "client/cpp/client.h"

namespace attic::cli {

struct AttendBenchOptions {
  std::string session_id;
  int64_t layer = -1;  // negative: the first stored layer
  size_t requests = 200;
  size_t threads = 1;
  uint64_t seed = 1;
  absl::Duration timeout = absl::Seconds(10);
  SelectionPolicy selection;  // of the indexed requests
};

struct AttendBenchResult {
  AttendMode mode = AttendMode::kIndexed;
  std::vector<double> milliseconds;  // of every request
  double seconds = 0;                // wall clock of all
  double mean_coverage = 0;          // over requests and query heads
  double mean_estimated_error = 0;   // over requests and query heads
  double mean_bytes_read = 0;        // per request
  size_t degraded = 0;
  std::vector<std::vector<float>> outputs;  // of every request
};

// Sends options.requests random queries (the same ones for the same seed) from options.threads
// threads. The first error ends it.
absl::StatusOr<AttendBenchResult> RunAttendBench(Client& client, const SessionDescription& session,
                                                 const AttendBenchOptions& options, AttendMode mode,
                                                 ProgressBar& progress);

// Relative L2 error of every request's output against the same request's in `exact`.
std::vector<double> OutputErrors(const AttendBenchResult& answer, const AttendBenchResult& exact);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_ATTEND_H_
