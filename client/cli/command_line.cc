#include "client/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string>

#include "client/cli/command.h"

namespace attic::cli {
namespace {

// A message of several lines would hide where the error ends.
int Fail(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::cerr << "error: " << message << std::endl;
  return 1;
}

}  // namespace

int RunCommandLine(int argc, const char* const* argv) {
  SelectedCommand selected;
  CLI::App app(
      "Attic keeps the KV cache that a GPU has no room for, and answers attention from it.",
      "attic");
  app.add_option("--server", selected.global.server,
                 "Address of the store, or of some of a cluster's, with commas between")
      ->envname("ATTIC_SERVER")
      ->capture_default_str();
  app.add_flag("--json", selected.global.json, "Print one JSON document instead of tables");
  app.set_version_flag("--version", "attic " ATTIC_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  AddStatusCommand(app, selected);
  AddClusterCommand(app, selected);
  AddSessionsCommand(app, selected);
  AddPlanCommand(app, selected);
  AddSearchCommand(app, selected);
  AddBenchCommand(app, selected);
  AddExportCommand(app, selected);
  AddImportCommand(app, selected);
  AddDoctorCommand(app, selected);
  AddDemoCommand(app, selected);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return Fail(std::string(error.what()) + " (attic --help lists the options)");
  }
  const absl::StatusOr<int> exit_code = selected.run();
  if (!exit_code.ok()) return Fail(std::string(exit_code.status().message()));
  return *exit_code;
}

}  // namespace attic::cli
