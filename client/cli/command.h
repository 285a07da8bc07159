// The parts every command of `attic` shares: the options given before or after any command, how a
// command is registered, and output.
#ifndef ATTIC_CLIENT_CLI_COMMAND_H_
#define ATTIC_CLIENT_CLI_COMMAND_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/client.h"

namespace attic::cli {

struct GlobalOptions {
  std::string server = "127.0.0.1:7400";
  bool json = false;
};

// The command line's command, chosen by the parser: run returns the exit code, or an error that
// main prints as one line.
struct SelectedCommand {
  GlobalOptions global;
  std::function<absl::StatusOr<int>()> run;
};

// Each adds its command to `app`; when it is chosen, it sets selected.run. `selected` outlives the
// parse and the run.
void AddStatusCommand(CLI::App& app, SelectedCommand& selected);
void AddClusterCommand(CLI::App& app, SelectedCommand& selected);
void AddSessionsCommand(CLI::App& app, SelectedCommand& selected);
void AddPlanCommand(CLI::App& app, SelectedCommand& selected);
void AddSearchCommand(CLI::App& app, SelectedCommand& selected);
void AddBenchCommand(CLI::App& app, SelectedCommand& selected);
void AddDoctorCommand(CLI::App& app, SelectedCommand& selected);
void AddExportCommand(CLI::App& app, SelectedCommand& selected);
void AddImportCommand(CLI::App& app, SelectedCommand& selected);
void AddDemoCommand(CLI::App& app, SelectedCommand& selected);

// Connects to global.server.
absl::StatusOr<std::unique_ptr<Client>> Connect(const GlobalOptions& global);

// Writes one JSON document and a newline to stdout.
void PrintJson(const nlohmann::ordered_json& document);

// For a call that takes as long as a person waits.
absl::Time CommandDeadline();

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_COMMAND_H_
