// attic demo: a store and a worker on this machine, a long real text with hidden needles, and every
// answer compared with exact attention.
#ifndef ATTIC_CLIENT_CLI_DEMO_DEMO_H_
#define ATTIC_CLIENT_CLI_DEMO_DEMO_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/selection.h"
#include "client/cli/demo/report.h"

namespace attic::cli {

struct DemoOptions {
  std::vector<std::string> text_files;  // empty: text found on this machine
  int64_t tokens = 1 << 20;             // of the text with the needles
  std::string model_dir = "model/recall";
  size_t questions = 20;
  uint64_t seed = 1;
  SelectionPolicy selection;  // how far the store goes for the indexed answers
  bool quiet = false;         // no progress on stderr
  // What is read is durable, and the store is killed between reading and asking.
  bool durable = false;
  // Stores that are there already, with commas between; empty: they are started.
  std::string store_addresses;
  // Of a cluster instead of one store, with two replicas; one is killed while questions are asked.
  size_t cluster_stores = 0;
  // Queries made up from the seed that are answered exactly in the end, so that runs can be
  // compared.
  size_t probes = 0;
  std::vector<std::string> store_arguments;   // passed on to attic-store...
  std::vector<std::string> worker_arguments;  // ...and attic-worker
};

// Starts the processes, asks the questions, stops the processes. Errors name what was wrong with
// the options or which process failed, with its last line of output.
absl::StatusOr<DemoReport> RunDemo(const DemoOptions& options);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_DEMO_H_
