#include "client/cli/demo/stores.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace attic::cli {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr char kAnyPort[] = "127.0.0.1:0";

// HOST:PORT of a port that was free a moment ago: etcd cannot be asked which one it took.
absl::StatusOr<std::string> FreeAddress() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  const bool found = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  if (fd >= 0) close(fd);
  if (!found) return absl::UnavailableError("no free port");
  return absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
}

absl::StatusOr<std::string> FindEtcd() {
  for (const char* path : {"/usr/bin/etcd", "/usr/local/bin/etcd", "/usr/sbin/etcd"}) {
    if (access(path, X_OK) == 0) return std::string(path);
  }
  return absl::NotFoundError("there is no etcd; Debian's package is etcd-server");
}

}  // namespace

absl::StatusOr<std::unique_ptr<DemoStores>> DemoStores::Start(const DemoStoresOptions& options) {
  std::unique_ptr<DemoStores> demo(new DemoStores(options));
  if (options.durable || options.cluster_stores > 0) {
    ATTIC_ASSIGN_OR_RETURN(demo->folder_, TemporaryFolder::Make("attic-demo-"));
  }
  if (options.cluster_stores > 0) ATTIC_RETURN_IF_ERROR(demo->StartEtcd());
  demo->stores_.resize(std::max<size_t>(1, options.cluster_stores));
  for (size_t i = 0; i < demo->stores_.size(); ++i) {
    ATTIC_RETURN_IF_ERROR(demo->StartStore(i, kAnyPort));
  }
  return demo;
}

absl::Status DemoStores::StartEtcd() {
  ATTIC_ASSIGN_OR_RETURN(const std::string binary, FindEtcd());
  ATTIC_ASSIGN_OR_RETURN(etcd_address_, FreeAddress());
  ATTIC_ASSIGN_OR_RETURN(const std::string peers, FreeAddress());
  const std::string client_url = absl::StrCat("http://", etcd_address_);
  const std::string peer_url = absl::StrCat("http://", peers);
  ATTIC_ASSIGN_OR_RETURN(
      etcd_, ServerProcess::Start(binary,
                                  {"--name", "demo", "--data-dir", folder_->path() + "/etcd",
                                   "--logger", "zap", "--log-level", "warn", "--listen-client-urls",
                                   client_url, "--advertise-client-urls", client_url,
                                   "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls",
                                   peer_url, "--initial-cluster", absl::StrCat("demo=", peer_url)},
                                  /*ready_prefix=*/"", kStartTimeout));
  return absl::OkStatus();
}

absl::Status DemoStores::StartStore(size_t number, const std::string& listen) {
  const std::string name = absl::StrCat("store-", number);
  std::vector<std::string> arguments = {"--listen", listen};
  if (options_.durable) {
    arguments.insert(arguments.end(), {"--data-dir", absl::StrCat(folder_->path(), "/", name)});
  }
  if (options_.cluster_stores > 0) {
    arguments.insert(arguments.end(), {"--cluster", "demo", "--node-id", name, "--cluster-etcd",
                                       etcd_address_, "--lease-seconds", "2", "--initial-nodes",
                                       absl::StrCat(options_.cluster_stores)});
  }
  arguments.insert(arguments.end(), options_.store_arguments.begin(),
                   options_.store_arguments.end());
  ATTIC_ASSIGN_OR_RETURN(stores_[number],
                         ServerProcess::Start(BesideThisBinary("attic-store"), arguments,
                                              "attic-store ready on", kStartTimeout));
  return absl::OkStatus();
}

std::string DemoStores::addresses() const {
  return absl::StrJoin(stores_, ",", [](std::string* out, const auto& store) {
    absl::StrAppend(out, store->address());
  });
}

absl::Status DemoStores::CrashAndRestart() {
  const std::string address = stores_.front()->address();
  stores_.front()->Kill();
  return StartStore(0, address);
}

std::string DemoStores::KillOne() {
  stores_.back()->Kill();
  return absl::StrCat("store-", stores_.size() - 1);
}

std::string DemoStores::last_lines() const {
  std::string lines;
  const auto add = [&](const ServerProcess* process) {
    if (process == nullptr || process->last_line().empty()) return;
    absl::StrAppend(&lines, " (", process->name(), ": ", process->last_line(), ")");
  };
  add(etcd_.get());
  for (const auto& store : stores_) add(store.get());
  return lines;
}

}  // namespace attic::cli
