// attic status: what a store holds and where its memory goes.
#include <iostream>

#include "base/status_macros.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/memory_table.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

void PrintDisk(const StoreStatus& status) {
  if (status.disk_bytes > 0 || status.recovering_sessions > 0) {
    const uint64_t reads = status.cache_hits + status.cache_misses;
    std::cout << "\ndisk: " << FormatBytes(status.disk_bytes) << " in segment files, "
              << FormatBytes(status.cache_bytes) << " of them cached, "
              << FormatPercent(reads == 0 ? 0 : double(status.cache_hits) / reads)
              << " of reads found there; " << FormatCount(status.recovering_sessions)
              << " sessions being read\n";
  }
  if (status.evicted_sessions > 0) {
    std::cout << "\nclosed by the store, for their lease had ended: "
              << FormatCount(status.evicted_sessions) << " sessions\n";
  }
  for (const DamageReport& report : status.damage) {
    std::cout << "\ndamaged: " << report.file << ": " << report.what << '\n';
  }
}

absl::StatusOr<int> RunStatus(const GlobalOptions& global) {
  ATTIC_ASSIGN_OR_RETURN(const auto client, Connect(global));
  ATTIC_ASSIGN_OR_RETURN(const StoreStatus status, client->Status());
  if (global.json) {
    PrintJson(ToJson(status));
    return 0;
  }
  std::cout << "store at " << global.server << ", version " << status.version << ", up "
            << FormatSeconds(status.uptime_seconds) << ", " << status.threads << " threads, "
            << status.vector_target << ", boot " << status.boot_id << "\n\n";
  Table table({{"sessions"}, {"tokens x layers"}, {"segments waiting"}, {"memory"}});
  table.AddRow({FormatCount(status.sessions), FormatCount(status.tokens),
                FormatCount(status.pending_segments), FormatBytes(status.memory.total())});
  table.Print(std::cout);
  if (status.memory.total() > 0) {
    std::cout << '\n';
    PrintMemoryTable(status.memory, std::cout);
  }
  PrintDisk(status);
  return 0;
}

}  // namespace

void AddStatusCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* command = app.add_subcommand("status", "What the store holds, and its memory by part");
  command->callback(
      [&selected] { selected.run = [&selected] { return RunStatus(selected.global); }; });
}

}  // namespace attic::cli
