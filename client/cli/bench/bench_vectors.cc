#include "client/cli/bench/bench_vectors.h"

#include <iterator>
#include <utility>

#include "base/status_macros.h"
#include "client/cli/bench/bench_report.h"
#include "client/cli/bench/measured_indexes.h"

namespace attic::cli {
namespace {

constexpr size_t kWidthMax = size_t{1} << 20;

void MoveInto(std::vector<IndexMeasurement> from, std::vector<IndexMeasurement>& to) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

absl::Status BenchVectors(const VectorsBenchOptions& options, std::ostream& out) {
  for (const size_t ef : options.widths) {
    if (ef == 0 || ef > kWidthMax) {
      return absl::InvalidArgumentError("ef: must be between 1 and 1048576");
    }
  }
  ATTIC_ASSIGN_OR_RETURN(const BenchData data, LoadBenchData(options.data));
  std::vector<size_t> widths = options.widths;
  if (widths.empty()) widths = {data.k, 2 * data.k, 4 * data.k, 8 * data.k};
  const ExactAnswers exact = ComputeExactAnswers(data);

  std::vector<IndexMeasurement> measured = MeasureExactScan(data, exact);
  ATTIC_ASSIGN_OR_RETURN(std::vector<IndexMeasurement> clustered,
                         MeasureClustered(data, exact, options.show_progress));
  MoveInto(std::move(clustered), measured);
  ATTIC_ASSIGN_OR_RETURN(std::vector<IndexMeasurement> graphs,
                         MeasureGraphs(data, exact, widths, options.show_progress));
  MoveInto(std::move(graphs), measured);
  if (options.json) {
    PrintReportJson(data, measured, out);
  } else {
    PrintReportTable(data, measured, out);
  }
  return absl::OkStatus();
}

}  // namespace attic::cli
