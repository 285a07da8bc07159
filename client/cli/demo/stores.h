// The stores the demo works with: one, or a cluster of several with an etcd.
#ifndef ATTIC_CLIENT_CLI_DEMO_STORES_H_
#define ATTIC_CLIENT_CLI_DEMO_STORES_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/demo/processes.h"
#include "client/cli/demo/temporary_folder.h"

namespace attic::cli {

struct DemoStoresOptions {
  std::string addresses;      // of stores that are there already; empty: none are
  size_t cluster_stores = 0;  // 0: one store, in no cluster
  bool durable = false;
  std::vector<std::string> store_arguments;
};

// Processes on this machine. Not thread-safe.
class DemoStores {
 public:
  // Returns when they serve; starts none if there are addresses. NOT_FOUND when a cluster is asked
  // for and there is no etcd.
  static absl::StatusOr<std::unique_ptr<DemoStores>> Start(const DemoStoresOptions& options);

  // What clients connect to: HOST:PORT, or several of them with commas between.
  std::string addresses() const;

  // Kills the only store, as a crash would, and starts it again.
  absl::Status CrashAndRestart();
  // Kills one store of a cluster; the others stay. Returns its name.
  std::string KillOne();

  // The last line of output of every process, for error messages.
  std::string last_lines() const;

 private:
  explicit DemoStores(const DemoStoresOptions& options) : options_(options) {}
  absl::Status StartEtcd();
  // listen: HOST:PORT.
  absl::Status StartStore(size_t number, const std::string& listen);

  const DemoStoresOptions options_;
  std::unique_ptr<TemporaryFolder> folder_;  // of etcd and durable stores
  std::string etcd_address_;
  std::unique_ptr<ServerProcess> etcd_;
  std::vector<std::unique_ptr<ServerProcess>> stores_;
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_STORES_H_
