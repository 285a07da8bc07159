#include "client/cli/bench/bench_data.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "attention/exact_attention.h"
#include "base/status_macros.h"

namespace attic::cli {
namespace {

constexpr uint64_t kHeadDimMax = 1024;

absl::Status CheckShapes(const BenchDataOptions& options, const NpyHeader& queries,
                         const NpyHeader& keys, const NpyHeader& values) {
  const auto error = [](const std::string& file, const std::string& problem) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": shape: ", problem));
  };
  if (keys.columns > kHeadDimMax || values.columns > kHeadDimMax) {
    return error(keys.columns > kHeadDimMax ? options.keys_path : options.values_path,
                 absl::StrCat("more than ", kHeadDimMax, " columns"));
  }
  if (keys.rows >= std::numeric_limits<uint32_t>::max()) {
    return error(options.keys_path, "more rows than 32 bits count");
  }
  if (queries.columns != keys.columns) {
    return error(options.queries_path,
                 absl::StrCat(queries.columns, " columns, keys have ", keys.columns));
  }
  if (values.rows != keys.rows) {
    return error(options.values_path, absl::StrCat(values.rows, " rows, keys have ", keys.rows));
  }
  if (values.type != keys.type) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.values_path, ": descr: element type differs from that of the keys"));
  }
  if (options.train >= queries.rows) {
    return absl::InvalidArgumentError(absl::StrCat("train: ", options.train, " of ", queries.rows,
                                                   " queries leave none to measure"));
  }
  return absl::OkStatus();
}

std::vector<float> Widened(const VectorsView& rows) {
  std::vector<float> out(rows.count * rows.dim);
  ToFloat32(rows.data, rows.type, out);
  return out;
}

}  // namespace

absl::StatusOr<BenchData> LoadBenchData(const BenchDataOptions& options) {
  if (options.k == 0) return absl::InvalidArgumentError("k: must be at least 1");
  if (options.test == 0) return absl::InvalidArgumentError("test: must be at least 1");
  if (!std::isfinite(options.logit_scale) || options.logit_scale < 0.0) {
    return absl::InvalidArgumentError("logit-scale: must be positive");
  }
  ATTIC_ASSIGN_OR_RETURN(const NpyMatrix queries, ReadNpyMatrix(options.queries_path));
  BenchData data;
  ATTIC_ASSIGN_OR_RETURN(data.keys, ReadNpyMatrix(options.keys_path));
  ATTIC_ASSIGN_OR_RETURN(data.values, ReadNpyMatrix(options.values_path));
  ATTIC_RETURN_IF_ERROR(CheckShapes(options, queries.header, data.keys.header, data.values.header));
  const size_t test_count = std::min<size_t>(options.test, queries.header.rows - options.train);
  data.train = Widened(queries.view().rows(0, options.train));
  data.test = Widened(queries.view().rows(options.train, test_count));
  data.k = std::min(options.k, data.key_count());
  data.logit_scale = options.logit_scale > 0.0
                         ? options.logit_scale
                         : 1.0 / std::sqrt(static_cast<double>(data.head_dim()));
  return data;
}

ExactAnswers ComputeExactAnswers(const BenchData& data) {
  ExactAnswers answers;
  const VectorsView keys = data.keys.view();
  const VectorsView values = data.values.view();
  answers.best = ExactNeighbors(data.test.data(), data.test_count(), keys, data.k);
  answers.output.resize(data.test_count() * data.value_dim());
  answers.log_sum_exp.resize(data.test_count());
  for (size_t i = 0; i < data.test_count(); ++i) {
    answers.log_sum_exp[i] = ReferenceAttention(
        {data.test_query(i), data.head_dim()}, data.logit_scale, keys, values,
        std::span(answers.output).subspan(i * data.value_dim(), data.value_dim()));
  }
  return answers;
}

}  // namespace attic::cli
