// The two forms of the result of `attic bench vectors`.
#ifndef ATTIC_CLIENT_CLI_BENCH_BENCH_REPORT_H_
#define ATTIC_CLIENT_CLI_BENCH_BENCH_REPORT_H_

#include <ostream>
#include <span>

#include "client/cli/bench/bench_data.h"
#include "client/cli/bench/index_measurement.h"

namespace attic::cli {

// What does not apply to an index is "-".
void PrintReportTable(const BenchData& data, std::span<const IndexMeasurement> measured,
                      std::ostream& out);

// One object and a newline. What does not apply to an index is null.
void PrintReportJson(const BenchData& data, std::span<const IndexMeasurement> measured,
                     std::ostream& out);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_BENCH_REPORT_H_
