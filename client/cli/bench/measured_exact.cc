
#include "attention/exact_attention.h"
#include "client/cli/bench/measured_indexes.h"
#include "client/cli/bench/stopwatch.h"
#include "client/cli/text_format.h"

namespace attic::cli {

std::vector<IndexMeasurement> MeasureExactScan(const BenchData& data, const ExactAnswers& exact) {
  ScanScratch scratch;
  std::vector<AttentionAccumulator> accumulator(1, AttentionAccumulator(data.value_dim()));
  std::vector<float> output(data.value_dim());
  std::vector<double> milliseconds;
  Mean error;
  for (size_t i = 0; i < data.test_count(); ++i) {
    const Stopwatch watch;
    accumulator[0].Reset(data.value_dim());
    ScanExact(data.test_query(i), static_cast<float>(data.logit_scale), data.keys.view(),
              data.values.view(), accumulator, scratch);
    accumulator[0].Finish(output);
    milliseconds.push_back(watch.milliseconds());
    error.Add(OutputError(data, exact, i, output));
  }
  return {{.index = "exact",
           .setting = "scan",
           .recall = 1.0,
           .keys_share = 1.0,
           .bytes_share = 1.0,
           .coverage_estimated = std::nullopt,
           .coverage_true = 1.0,
           .output_error = error.value(),
           .query_ms = Median(milliseconds)}};
}

}  // namespace attic::cli
