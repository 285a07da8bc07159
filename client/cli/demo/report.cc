#include "client/cli/demo/report.h"

#include <algorithm>

#include "client/cli/json_output.h"
#include "client/cli/memory_table.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

// One field of every token of `rows` in one of their lists.
template <typename Field>
std::vector<double> Collect(const std::vector<DemoRow>& rows,
                            std::vector<DecodedToken> DemoRow::*list, Field DecodedToken::*field) {
  std::vector<double> values;
  for (const DemoRow& row : rows) {
    for (const DecodedToken& token : row.*list) {
      values.push_back(static_cast<double>(token.*field));
    }
  }
  return values;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

void PrintRows(const DemoReport& report, std::ostream& out) {
  Table table({{"depth"},
               {"name", Align::kLeft},
               {"expected", Align::kLeft},
               {"answer", Align::kLeft},
               {"right"},
               {"exact right"},
               {"output error"},
               {"estimated"},
               {"coverage"},
               {"ms/token"},
               {"exact ms/token"},
               {"MB/token"},
               {"exact MB/token"}});
  for (const DemoRow& row : report.rows) {
    const DemoReport one{.rows = {row}};
    const DemoSummary summary = Summarize(one);
    table.AddRow({FormatPercent(row.needle.depth), row.needle.name, row.needle.digits,
                  EscapeText(row.answer), row.correct() ? "yes" : "NO",
                  row.exact_correct() ? "yes" : "NO", FormatFixed(summary.output_error_worst, 5),
                  FormatFixed(summary.estimated_error_worst, 5),
                  FormatFixed(summary.coverage_median, 3), FormatFixed(summary.attend_ms, 2),
                  FormatFixed(summary.exact_attend_ms, 2), FormatFixed(summary.bytes_read / 1e6, 2),
                  FormatFixed(summary.exact_bytes_read / 1e6, 1)});
  }
  table.Print(out);
}

void PrintSummary(const DemoReport& report, const DemoSummary& summary, std::ostream& out) {
  Table table({{"", Align::kLeft}, {"through the index"}, {"exact attention"}});
  const std::string questions = "/" + std::to_string(summary.questions);
  table.AddRow({"answered right", std::to_string(summary.correct) + questions,
                std::to_string(summary.exact_correct) + questions});
  table.AddRow({"attention over the context, ms a token (median)",
                FormatFixed(summary.attend_ms, 2), FormatFixed(summary.exact_attend_ms, 2)});
  table.AddRow({"whole token, ms (median)", FormatFixed(summary.token_ms, 2),
                FormatFixed(summary.exact_token_ms, 2)});
  table.AddRow({"read by the store, MB a token", FormatFixed(summary.bytes_read / 1e6, 2),
                FormatFixed(summary.exact_bytes_read / 1e6, 2)});
  table.AddRow({"output error (median, worst)",
                FormatFixed(summary.output_error_median, 5) + ", " +
                    FormatFixed(summary.output_error_worst, 5),
                "0"});
  table.AddRow({"estimated error (median, worst)",
                FormatFixed(summary.estimated_error_median, 5) + ", " +
                    FormatFixed(summary.estimated_error_worst, 5),
                "0"});
  table.AddRow(
      {"attended exactly, share of mass (median)", FormatFixed(summary.coverage_median, 3), "1"});
  table.Print(out);
  out << "\nAttention over " << FormatCount(report.tokens)
      << " tokens: " << FormatFixed(summary.speed_ratio(), 1)
      << " times as fast as exact attention, reading " << FormatPercent(summary.bytes_read_ratio, 2)
      << " of its bytes.\n";
}

void PrintReadings(const DemoReport& report, const DemoSummary& summary, std::ostream& out) {
  Table table({{"reading the text", Align::kLeft}, {"first reader"}, {"second reader"}});
  const DemoReading& first = report.first;
  const DemoReading& second = report.second;
  table.AddRow({"from the text to the first token of an answer",
                FormatFixed(first.first_token_seconds, 2) + " s",
                FormatFixed(second.first_token_seconds, 2) + " s"});
  table.AddRow({"tokens found in the store", FormatCount(first.prefill.reused_tokens),
                FormatCount(second.prefill.reused_tokens)});
  table.AddRow({"appended to the store", FormatBytes(first.prefill.appended_bytes),
                FormatBytes(second.prefill.appended_bytes)});
  const std::string questions = "/" + std::to_string(summary.questions);
  table.AddRow({"answered right", std::to_string(summary.correct) + questions,
                std::to_string(report.second_correct) + questions});
  table.Print(out);
  if (report.recovery_seconds > 0) {
    out << "\nThe store was killed after the reading and was back, with all of it, after "
        << FormatFixed(report.recovery_seconds, 2) << " s.\n";
  }
  out << "\nA second reader of the same text answers " << FormatFixed(summary.first_token_ratio, 0)
      << " times as soon: it finds the text in the store.\n";
}

void PrintPhases(const DemoReport& report, std::ostream& out) {
  Table table({{"phase", Align::kLeft}, {"time"}});
  double total = 0;
  for (const auto& [phase, seconds] : report.phase_seconds) {
    table.AddRow({phase, FormatSeconds(seconds)});
    total += seconds;
  }
  table.AddRow({"total", FormatSeconds(total)});
  table.Print(out);
}

}  // namespace

DemoSummary Summarize(const DemoReport& report) {
  const std::vector<DemoRow>& rows = report.rows;
  DemoSummary summary{.questions = rows.size()};
  for (const DemoRow& row : rows) {
    summary.correct += row.correct() ? 1 : 0;
    summary.exact_correct += row.exact_correct() ? 1 : 0;
  }
  const auto indexed = [&](auto field) { return Collect(rows, &DemoRow::tokens, field); };
  const auto exact = [&](auto field) { return Collect(rows, &DemoRow::exact_tokens, field); };
  const std::vector<double> errors = Collect(rows, &DemoRow::compared, &DecodedToken::output_error);
  summary.output_error_median = Median(errors);
  summary.output_error_worst = Percentile(errors, 1.0);
  const std::vector<double> estimates =
      Collect(rows, &DemoRow::compared, &DecodedToken::estimated_error);
  summary.estimated_error_median = Median(estimates);
  summary.estimated_error_worst = Percentile(estimates, 1.0);
  summary.coverage_median = Median(indexed(&DecodedToken::coverage));
  summary.attend_ms = Median(indexed(&DecodedToken::attend_ms));
  summary.exact_attend_ms = Median(exact(&DecodedToken::attend_ms));
  summary.token_ms = Median(indexed(&DecodedToken::token_ms));
  summary.exact_token_ms = Median(exact(&DecodedToken::token_ms));
  summary.bytes_read = Mean(indexed(&DecodedToken::bytes_read));
  summary.exact_bytes_read = Mean(exact(&DecodedToken::bytes_read));
  if (report.second.first_token_seconds > 0) {
    summary.first_token_ratio =
        report.first.first_token_seconds / report.second.first_token_seconds;
  }
  if (summary.exact_bytes_read > 0) {
    summary.bytes_read_ratio = summary.bytes_read / summary.exact_bytes_read;
  }
  return summary;
}

void PrintReport(const DemoReport& report, std::ostream& out) {
  const DemoSummary summary = Summarize(report);
  PrintRows(report, out);
  out << '\n';
  PrintSummary(report, summary, out);
  out << '\n';
  PrintReadings(report, summary, out);
  out << '\n';
  PrintMemoryTable(report.store.memory, out);
  out << '\n';
  PrintPhases(report, out);
  out << "\nNext: the README shows how to start a store and a worker of your own, and how to call"
         "\nthem from C++ and the command line (attic --help).\n";
}

nlohmann::ordered_json ToJson(const DemoReport& report) {
  using Json = nlohmann::ordered_json;
  const DemoSummary summary = Summarize(report);
  Json phases = Json::object();
  for (const auto& [phase, seconds] : report.phase_seconds) phases[phase] = seconds;
  Json rows = Json::array();
  for (const DemoRow& row : report.rows) {
    const DemoSummary one = Summarize({.rows = {row}});
    rows.push_back({{"depth", row.needle.depth},
                    {"name", row.needle.name},
                    {"expected", row.needle.digits},
                    {"answer", EscapeText(row.answer)},
                    {"exact_answer", EscapeText(row.exact_answer)},
                    {"correct_retrieval", row.correct()},
                    {"correct_exact", row.exact_correct()},
                    {"output_error", one.output_error_worst},
                    {"estimated_error", one.estimated_error_worst},
                    {"coverage", one.coverage_median},
                    {"ms_per_token_retrieval", one.attend_ms},
                    {"ms_per_token_exact", one.exact_attend_ms},
                    {"bytes_read_retrieval", one.bytes_read},
                    {"bytes_read_exact", one.exact_bytes_read}});
  }
  return {{"tokens", report.tokens},
          {"questions", summary.questions},
          {"correct_retrieval", summary.correct},
          {"correct_exact", summary.exact_correct},
          {"output_error_median", summary.output_error_median},
          {"output_error_worst", summary.output_error_worst},
          {"estimated_error_median", summary.estimated_error_median},
          {"estimated_error_worst", summary.estimated_error_worst},
          {"coverage_median", summary.coverage_median},
          {"ms_per_token_retrieval", summary.attend_ms},
          {"ms_per_token_exact", summary.exact_attend_ms},
          {"whole_token_ms_retrieval", summary.token_ms},
          {"whole_token_ms_exact", summary.exact_token_ms},
          {"bytes_read_per_token_retrieval", summary.bytes_read},
          {"bytes_read_per_token_exact", summary.exact_bytes_read},
          {"bytes_read_ratio", summary.bytes_read_ratio},
          {"first_token_seconds", report.first.first_token_seconds},
          {"first_token_seconds_second_reader", report.second.first_token_seconds},
          {"first_token_ratio", summary.first_token_ratio},
          {"appended_bytes", report.first.prefill.appended_bytes},
          {"appended_bytes_second_reader", report.second.prefill.appended_bytes},
          {"reused_tokens_second_reader", report.second.prefill.reused_tokens},
          {"correct_second_reader", report.second_correct},
          {"recovery_seconds", report.recovery_seconds},
          {"killed", report.killed},
          {"probes", report.probes},
          {"seed", report.seed},
          {"selection", ToJson(report.selection)},
          {"text_files", report.text_files},
          {"model", report.model.fingerprint.model_id},
          {"backend", report.model.backend},
          {"memory", ToJson(report.store.memory)},
          {"seconds", phases},
          {"rows", rows}};
}

}  // namespace attic::cli
