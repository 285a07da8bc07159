// The command line of attic demo.
#include <cstdlib>
#include <iostream>

#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/demo/demo.h"
#include "client/cli/demo/processes.h"
#include "client/cli/selection_options.h"

namespace attic::cli {
namespace {

constexpr int kExitTooManyWrong = 3;

absl::StatusOr<int> Run(const GlobalOptions& global, DemoOptions options) {
  StopProcessesOnSignals();
  options.quiet = global.json;
  ATTIC_ASSIGN_OR_RETURN(const DemoReport report, RunDemo(options));
  if (global.json) {
    PrintJson(ToJson(report));
  } else {
    std::cout << '\n';
    PrintReport(report, std::cout);
  }
  return Summarize(report).passed() ? 0 : kExitTooManyWrong;
}

}  // namespace

void AddDemoCommand(CLI::App& app, SelectedCommand& selected) {
  auto options = std::make_shared<DemoOptions>();
  CLI::App* command = app.add_subcommand(
      "demo",
      "Start a store and a worker, read a long text with hidden needles, ask for every needle, and "
      "compare each answer with exact attention. Exit code 3 when fewer than 95% are right.");
  command->add_option("--text", options->text_files,
                      "Text files (default: text found on this machine)");
  command->add_option("--tokens", options->tokens, "Length of the text; a token is a byte")
      ->capture_default_str();
  command->add_option("--model", options->model_dir, "Folder of the model")
      ->envname("ATTIC_MODEL")
      ->capture_default_str();
  command->add_option("--questions", options->questions, "Needles hidden and asked for")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of names and codes")->capture_default_str();
  command->add_flag(
      "--durable", options->durable,
      "Keep what is read on disk, kill the store (-9) between reading and asking, and "
      "start it again");
  command
      ->add_option("--cluster", options->cluster_stores,
                   "Stores of a cluster with an etcd instead of one store; one of them is killed "
                   "(-9) between questions")
      ->check(CLI::Range(0, 64));
  command->add_option(
      "--store", options->store_addresses,
      "HOST:PORT of a store, or of stores of a cluster with commas between, that is "
      "there already");
  command
      ->add_option("--probes", options->probes,
                   "Queries from the seed answered exactly in the end, for comparing runs by "
                   "their --json")
      ->check(CLI::Range(0, 64));
  AddSelectionOptions(*command, options->selection);
  command->add_option("--store-argument", options->store_arguments,
                      "Passed on to attic-store, as --store-argument=--threads=4");
  command->add_option("--worker-argument", options->worker_arguments,
                      "Passed on to attic-worker, as --worker-argument=--backend=cpu");
  command->callback([&selected, options] {
    selected.run = [&selected, options] { return Run(selected.global, *options); };
  });
}

}  // namespace attic::cli
