// attic bench: attention against a session, and vector search against its peers.
#include <iostream>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "client/cli/bench/bench_vectors.h"
#include "client/cli/bench_attend.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/progress.h"
#include "client/cli/selection_options.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

constexpr double kPercentiles[] = {0.5, 0.9, 0.99, 1.0};

struct AttendArguments {
  AttendBenchOptions options;
  int64_t timeout_ms = 10'000;
  std::string mode = "both";
};

const char* ModeName(AttendMode mode) { return mode == AttendMode::kExact ? "exact" : "indexed"; }

void PrintResults(const SessionDescription& session, const std::vector<AttendBenchResult>& results,
                  const std::vector<double>& errors, const AttendArguments& arguments) {
  std::cout << "session " << session.session_id << ", " << FormatCount(session.watermark)
            << " tokens, " << arguments.options.requests << " requests, "
            << arguments.options.threads << " threads, seed " << arguments.options.seed << "\n\n";
  Table table({{"mode", Align::kLeft},
               {"p50 ms"},
               {"p90 ms"},
               {"p99 ms"},
               {"max ms"},
               {"requests/s"},
               {"coverage"},
               {"MB read"},
               {"estimated error"},
               {"output error"}});
  for (const AttendBenchResult& result : results) {
    std::vector<std::string> row = {ModeName(result.mode)};
    for (const double share : kPercentiles) {
      row.push_back(FormatFixed(Percentile(result.milliseconds, share), 3));
    }
    row.push_back(FormatFixed(result.milliseconds.size() / result.seconds, 0));
    row.push_back(FormatFixed(result.mean_coverage, 3));
    row.push_back(FormatFixed(result.mean_bytes_read / 1e6, 2));
    row.push_back(FormatFixed(result.mean_estimated_error, 4));
    row.push_back(
        result.mode == AttendMode::kExact || errors.empty() ? "-" : FormatFixed(Median(errors), 4));
    table.AddRow(std::move(row));
  }
  table.Print(std::cout);
  size_t degraded = 0;
  for (const AttendBenchResult& result : results) degraded += result.degraded;
  if (degraded > 0) std::cout << "\n" << degraded << " answers were cut short by the deadline\n";
}

nlohmann::ordered_json ResultsJson(const SessionDescription& session,
                                   const std::vector<AttendBenchResult>& results,
                                   const std::vector<double>& errors,
                                   const AttendArguments& arguments) {
  nlohmann::ordered_json modes = nlohmann::ordered_json::object();
  for (const AttendBenchResult& result : results) {
    modes[ModeName(result.mode)] = {
        {"p50_ms", Percentile(result.milliseconds, 0.5)},
        {"p90_ms", Percentile(result.milliseconds, 0.9)},
        {"p99_ms", Percentile(result.milliseconds, 0.99)},
        {"max_ms", Percentile(result.milliseconds, 1.0)},
        {"requests_per_second", result.milliseconds.size() / result.seconds},
        {"coverage_mean", result.mean_coverage},
        {"estimated_error_mean", result.mean_estimated_error},
        {"bytes_read_mean", result.mean_bytes_read},
        {"degraded", result.degraded}};
  }
  nlohmann::ordered_json document = {{"session_id", session.session_id},
                                     {"tokens", session.watermark},
                                     {"requests", arguments.options.requests},
                                     {"threads", arguments.options.threads},
                                     {"seed", arguments.options.seed},
                                     {"selection", ToJson(arguments.options.selection)},
                                     {"modes", modes}};
  if (!errors.empty()) document["output_error_median"] = Median(errors);
  return document;
}

absl::StatusOr<int> RunAttend(const GlobalOptions& global, AttendArguments arguments) {
  arguments.options.timeout = absl::Milliseconds(arguments.timeout_ms);
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription session,
                         client->DescribeSession(arguments.options.session_id));
  std::vector<AttendBenchResult> results;
  for (const AttendMode mode : {AttendMode::kIndexed, AttendMode::kExact}) {
    if (arguments.mode != "both" && arguments.mode != ModeName(mode)) continue;
    ProgressBar progress(ModeName(mode), static_cast<int64_t>(arguments.options.requests),
                         "requests");
    ATTIC_ASSIGN_OR_RETURN(AttendBenchResult result,
                           RunAttendBench(*client, session, arguments.options, mode, progress));
    results.push_back(std::move(result));
  }
  std::vector<double> errors;
  if (results.size() == 2) errors = OutputErrors(results[0], results[1]);
  if (global.json) {
    PrintJson(ResultsJson(session, results, errors, arguments));
  } else {
    PrintResults(session, results, errors, arguments);
  }
  return 0;
}

void AddAttend(CLI::App& bench, SelectedCommand& selected) {
  auto arguments = std::make_shared<AttendArguments>();
  AttendBenchOptions& options = arguments->options;
  CLI::App* command =
      bench.add_subcommand("attend", "Latency of attention over a session, indexed and exact");
  command->add_option("session", options.session_id, "Session id")->required();
  command->add_option("--layer", options.layer, "Layer (default: the first stored)");
  command->add_option("--requests", options.requests, "Random queries per mode")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--threads", options.threads, "Threads that send")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Seed of the queries")->capture_default_str();
  command->add_option("--timeout-ms", arguments->timeout_ms, "Deadline of one request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--mode", arguments->mode, "indexed, exact or both")
      ->check(CLI::IsMember({"indexed", "exact", "both"}))
      ->capture_default_str();
  AddSelectionOptions(*command, options.selection);
  command->callback([&selected, arguments] {
    selected.run = [&selected, arguments] { return RunAttend(selected.global, *arguments); };
  });
}

void AddVectors(CLI::App& bench, SelectedCommand& selected) {
  auto options = std::make_shared<VectorsBenchOptions>();
  BenchDataOptions& data = options->data;
  CLI::App* command = bench.add_subcommand(
      "vectors", "Indexes and their peers on one head's queries, keys and values (.npy files)");
  command->add_option("--queries", data.queries_path, "(n, head_dim) float16 or float32")
      ->required();
  command->add_option("--keys", data.keys_path, "(tokens, head_dim)")->required();
  command->add_option("--values", data.values_path, "(tokens, value_dim)")->required();
  command->add_option("--train", data.train, "First queries, which teach the indexes")
      ->capture_default_str();
  command->add_option("--test", data.test, "Queries measured, at most, after those")
      ->capture_default_str();
  command->add_option("--k", data.k, "Of recall@k")->capture_default_str();
  command->add_option("--ef", options->widths, "Search widths of the graphs (default: k to 8k)");
  command->add_option("--logit-scale", data.logit_scale,
                      "Logits are this times q.k (default: 1/sqrt(head_dim))");
  command->callback([&selected, options] {
    selected.run = [&selected, options]() -> absl::StatusOr<int> {
      options->json = selected.global.json;
      ATTIC_RETURN_IF_ERROR(BenchVectors(*options, std::cout));
      return 0;
    };
  });
}

}  // namespace

void AddBenchCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* bench = app.add_subcommand("bench", "Measure attention and vector search");
  bench->require_subcommand(1);
  AddAttend(*bench, selected);
  AddVectors(*bench, selected);
}

}  // namespace attic::cli
