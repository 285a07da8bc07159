#include "client/cli/bench/bench_report.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "attention/vector_kernels.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::string Fixed(const std::optional<double>& value, int decimals) {
  return value ? FormatFixed(*value, decimals) : "-";
}

std::string Percent(const std::optional<double>& share) {
  return share ? FormatPercent(*share, 2) : "-";
}

}  // namespace

void PrintReportTable(const BenchData& data, std::span<const IndexMeasurement> measured,
                      std::ostream& out) {
  out << FormatCount(static_cast<int64_t>(data.key_count())) << " keys, head_dim "
      << data.head_dim() << ", value_dim " << data.value_dim() << ", "
      << ElementTypeName(data.keys.header.type) << ", logit scale "
      << FormatFixed(data.logit_scale, 4) << "; "
      << FormatCount(static_cast<int64_t>(data.train_count())) << " training and "
      << FormatCount(static_cast<int64_t>(data.test_count())) << " test queries; one thread, "
      << VectorTargetName() << "\n\n";
  const std::string recall_title = "recall@" + std::to_string(data.k);
  Table table({{"index", Align::kLeft},
               {"setting", Align::kLeft},
               {recall_title},
               {"keys"},
               {"bytes"},
               {"coverage"},
               {"true"},
               {"output error"},
               {"build s"},
               {"query ms"}});
  for (const IndexMeasurement& m : measured) {
    table.AddRow({m.index, m.setting, Fixed(m.recall, 4), Percent(m.keys_share),
                  Percent(m.bytes_share), Fixed(m.coverage_estimated, 3), Fixed(m.coverage_true, 3),
                  Fixed(m.output_error, 4), FormatFixed(m.build_seconds, 2),
                  FormatFixed(m.query_ms, 3)});
  }
  table.Print(out);
  out << "\nkeys, bytes: vectors scored and bytes read, of all keys and values (links of hnswlib "
         "not counted).\ncoverage: share of the softmax mass attended exactly, as estimated by the "
         "index and in truth.\noutput error: relative L2 distance from exact attention, mean. "
         "query ms: search and attention, median.\n";
}

void PrintReportJson(const BenchData& data, std::span<const IndexMeasurement> measured,
                     std::ostream& out) {
  Json indexes = Json::array();
  for (const IndexMeasurement& m : measured) {
    indexes.push_back({{"index", m.index},
                       {"setting", m.setting},
                       {"recall", OrNull(m.recall)},
                       {"keys_share", OrNull(m.keys_share)},
                       {"bytes_share", OrNull(m.bytes_share)},
                       {"coverage_estimated", OrNull(m.coverage_estimated)},
                       {"coverage_true", OrNull(m.coverage_true)},
                       {"output_error", OrNull(m.output_error)},
                       {"build_seconds", m.build_seconds},
                       {"query_ms", m.query_ms}});
  }
  const Json document = {{"keys", data.key_count()},
                         {"head_dim", data.head_dim()},
                         {"value_dim", data.value_dim()},
                         {"element_type", ElementTypeName(data.keys.header.type)},
                         {"logit_scale", data.logit_scale},
                         {"training_queries", data.train_count()},
                         {"test_queries", data.test_count()},
                         {"k", data.k},
                         {"vector_target", VectorTargetName()},
                         {"indexes", indexes}};
  out << document.dump(2) << "\n";
}

}  // namespace attic::cli
