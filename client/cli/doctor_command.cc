// attic doctor: what is whole and what is damaged in a data directory that no store uses.
#include <iostream>
#include <string>

#include "client/cli/command.h"
#include "client/cli/progress.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"
#include "server/storage/directory_check.h"

namespace attic::cli {
namespace {

using nlohmann::ordered_json;

constexpr int kDamaged = 1;
constexpr int kNotExamined = 2;

ordered_json ToJson(const CheckFinding& finding) {
  ordered_json json = {{"severity", finding.damage ? "damage" : "note"},
                       {"file", finding.file},
                       {"what", finding.what}};
  if (!finding.session_id.empty()) json["session_id"] = finding.session_id;
  if (finding.layer) json["layer"] = *finding.layer;
  if (finding.kv_head) json["kv_head"] = *finding.kv_head;
  if (finding.positions) {
    json["positions"] = {{"begin", finding.positions->begin}, {"end", finding.positions->end}};
  }
  if (!finding.advice.empty()) json["advice"] = finding.advice;
  return json;
}

ordered_json ToJson(const CheckedSession& session) {
  ordered_json layers = ordered_json::array();
  for (const CheckedLayer& layer : session.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"damaged", layer.damaged},
                      {"segments", layer.segments},
                      {"held_end", layer.held_end},
                      {"served_end", layer.served_end},
                      {"whole_end", layer.whole_end}});
  }
  ordered_json json = {
      {"session_id", session.session_id}, {"whole", session.whole}, {"layers", layers}};
  if (!session.advice.empty()) json["advice"] = session.advice;
  return json;
}

ordered_json ToJson(const DirectoryCheck& check) {
  ordered_json sessions = ordered_json::array();
  for (const CheckedSession& session : check.sessions) sessions.push_back(ToJson(session));
  ordered_json findings = ordered_json::array();
  for (const CheckFinding& finding : check.findings) findings.push_back(ToJson(finding));
  return {{"whole", check.whole()},
          {"damages", check.damages},
          {"sessions", sessions},
          {"findings", findings},
          {"findings_left_out", check.findings_left_out},
          {"segment_files", check.segment_files},
          {"segment_bytes", check.segment_bytes},
          {"orphan_files", check.orphan_files},
          {"orphan_bytes", check.orphan_bytes},
          {"rows_records", check.rows_records},
          {"rows_bytes", check.rows_bytes},
          {"records_bytes", check.records_bytes}};
}

void PrintFinding(const CheckFinding& finding) {
  std::cout << (finding.damage ? "damaged: " : "note: ") << finding.file << ": " << finding.what;
  const char* separator = "\n  ";
  const auto say = [&](const std::string& text) {
    std::cout << separator << text;
    separator = ", ";
  };
  if (!finding.session_id.empty()) say("session " + finding.session_id);
  if (finding.layer) say("layer " + std::to_string(*finding.layer));
  if (finding.kv_head) say("kv head " + std::to_string(*finding.kv_head));
  if (finding.positions) {
    say("positions " + std::to_string(finding.positions->begin) + " to " +
        std::to_string(finding.positions->end));
  }
  if (!finding.advice.empty()) std::cout << "\n  " << finding.advice;
  std::cout << '\n';
}

void Print(const std::string& directory, const DirectoryCheck& check) {
  std::cout << directory << ": " << FormatCount(check.sessions.size()) << " sessions, "
            << FormatCount(check.segment_files) << " segment files of "
            << FormatBytes(check.segment_bytes) << ", " << FormatCount(check.rows_records)
            << " records of rows of " << FormatBytes(check.rows_bytes) << ", records of "
            << FormatBytes(check.records_bytes) << " in all\n";
  if (check.orphan_files > 0) {
    std::cout << FormatCount(check.orphan_files) << " segment files of "
              << FormatBytes(check.orphan_bytes) << " that no record refers to\n";
  }
  std::cout << '\n';
  Table table({{"session", Align::kLeft},
               {"layer"},
               {"segments"},
               {"tokens"},
               {"served to"},
               {"whole to"},
               {"state", Align::kLeft}});
  for (const CheckedSession& session : check.sessions) {
    for (const CheckedLayer& layer : session.layers) {
      table.AddRow({session.session_id, std::to_string(layer.layer), FormatCount(layer.segments),
                    FormatCount(layer.held_end), FormatCount(layer.served_end),
                    FormatCount(layer.whole_end), layer.damaged ? "damaged" : "whole"});
    }
  }
  if (!check.sessions.empty()) table.Print(std::cout);
  for (const CheckFinding& finding : check.findings) {
    std::cout << '\n';
    PrintFinding(finding);
  }
  if (check.findings_left_out > 0) {
    std::cout << '\n' << FormatCount(check.findings_left_out) << " more are left out\n";
  }
  for (const CheckedSession& session : check.sessions) {
    if (session.advice.empty()) continue;
    std::cout << "\nsession " << session.session_id << ": " << session.advice << '\n';
  }
  std::cout << '\n' << (check.whole() ? "whole" : "damaged") << '\n';
}

absl::StatusOr<int> RunDoctor(const GlobalOptions& global, const std::string& directory) {
  DirectoryCheckOptions options;
  std::unique_ptr<ProgressBar> bar;
  options.progress = [&](uint64_t done, uint64_t total) {
    if (bar == nullptr) {
      bar = std::make_unique<ProgressBar>("examining", static_cast<int64_t>(total), "bytes");
    }
    bar->Update(static_cast<int64_t>(done));
  };
  const absl::StatusOr<DirectoryCheck> check = CheckDirectory(directory, options);
  bar.reset();
  if (!check.ok()) {
    const std::string message(check.status().message());
    if (global.json) {
      PrintJson({{"error", message}});
    } else {
      std::cerr << "error: " << message << '\n';
    }
    return kNotExamined;
  }
  if (global.json) {
    PrintJson(ToJson(*check));
  } else {
    Print(directory, *check);
  }
  return check->whole() ? 0 : kDamaged;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Examine a data directory that no store uses; exit status 0: whole, 1: damaged, 2: it "
      "cannot be examined");
  auto directory = std::make_shared<std::string>();
  command->add_option("directory", *directory, "What attic-store is given as --data-dir")
      ->required();
  command->callback([&selected, directory] {
    selected.run = [&selected, directory] { return RunDoctor(selected.global, *directory); };
  });
}

}  // namespace attic::cli
