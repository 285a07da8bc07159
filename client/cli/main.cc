// attic: look at a store, measure it, and see the whole system work (`attic demo`).
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "client/cli/command.h"

namespace {

int Fail(const std::string& message) {
  std::cerr << "error: " << message << std::endl;
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  attic::cli::SelectedCommand selected;
  CLI::App app(
      "Attic keeps the KV cache that a GPU has no room for, and answers attention from it.",
      "attic");
  app.add_option("--server", selected.global.server, "Address of the store")
      ->envname("ATTIC_SERVER")
      ->capture_default_str();
  app.add_flag("--json", selected.global.json, "Print one JSON document instead of tables");
  app.set_version_flag("--version", "attic " ATTIC_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  attic::cli::AddStatusCommand(app, selected);
  attic::cli::AddSessionsCommand(app, selected);
  attic::cli::AddSearchCommand(app, selected);
  attic::cli::AddBenchCommand(app, selected);
  attic::cli::AddDemoCommand(app, selected);

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
