// attic plan: how queries of every head of a session are answered, and why.
#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

std::string Error(double error) { return error > 0 ? absl::StrFormat("%.3f", error) : "-"; }

std::string Reason(const HeadPlan& plan) {
  if (plan.answers_measured == 0) return "not measured yet";
  if (!plan.scans_by_default) return "";
  return plan.scan_faster_below >= plan.least_error ? "a scan is faster"
                                                    : "the index errs by more than asked";
}

void PrintPlans(const std::vector<HeadPlan>& plans) {
  Table table({{"layer"},
               {"kv head"},
               {"indexed"},
               {"by default", Align::kLeft},
               {"scan faster up to error"},
               {"least error"},
               {"coverage up to"},
               {"hidden mass"},
               {"because", Align::kLeft}});
  for (const HeadPlan& plan : plans) {
    table.AddRow({std::to_string(plan.layer), std::to_string(plan.kv_head),
                  FormatCount(plan.indexed_tokens), plan.scans_by_default ? "scan" : "index",
                  Error(plan.scan_faster_below), Error(plan.least_error),
                  absl::StrFormat("%.2f", plan.coverage_max),
                  absl::StrFormat("%.3f", plan.hidden_mass), Reason(plan)});
  }
  table.Print(std::cout);
}

absl::StatusOr<int> RunPlan(const GlobalOptions& global, const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_ASSIGN_OR_RETURN(const std::vector<HeadPlan> plans, client->PlanSession(session_id));
  if (!global.json) {
    PrintPlans(plans);
    return 0;
  }
  nlohmann::ordered_json heads = nlohmann::ordered_json::array();
  for (const HeadPlan& plan : plans) heads.push_back(ToJson(plan));
  PrintJson({{"session_id", session_id}, {"heads", heads}});
  return 0;
}

}  // namespace

void AddPlanCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* command = app.add_subcommand("plan", "How each head of a session is answered, and why");
  const auto session_id = std::make_shared<std::string>();
  command->add_option("session", *session_id, "Session id")->required();
  command->callback([&selected, session_id] {
    selected.run = [&selected, session_id] { return RunPlan(selected.global, *session_id); };
  });
}

}  // namespace attic::cli
