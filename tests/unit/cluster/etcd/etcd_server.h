// A real etcd for tests, of one member, on free ports of the loopback interface, with data in a
// folder of its own. Needs the packages etcd-server and etcd-client.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_ETCD_ETCD_SERVER_H_
#define ATTIC_TESTS_UNIT_CLUSTER_ETCD_ETCD_SERVER_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/cluster/etcd/etcd_types.h"
#include "tests/support/temporary_folder.h"

namespace attic {

struct EtcdServerOptions {
  // With these etcd speaks TLS only, and to clients only that show a certificate of the authority.
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  std::vector<std::string> arguments;  // more of etcd's own
};

// Not thread-safe. The process is killed with this object, and by the kernel with the thread that
// started it.
class EtcdServer {
 public:
  // Waits until etcd serves.
  static absl::StatusOr<std::unique_ptr<EtcdServer>> Start(const EtcdServerOptions& options = {});
  ~EtcdServer();
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  const std::string& endpoint() const { return endpoint_; }     // HOST:PORT
  const std::string& folder() const { return folder_.path(); }  // for a test's files, too
  // To reach it, by TLS if it speaks that, with the server's own certificate, and with timeouts
  // that suit tests. Without a user.
  EtcdOptions ClientOptions() const;

  // Stops the process where it is; its connections stay open. Returns when it has stopped.
  void Pause();
  void Resume();
  // As by a loss of power, but for what the system has yet to write.
  void Kill();
  // On the same port, with the data as they were; a running process is killed before. Waits until
  // etcd serves.
  absl::Status Restart();
  // The same without any data.
  absl::Status Wipe();
  // Restarts, and keeps a copy of its data; with the data of the last copy.
  absl::Status RestartAndCopy();
  absl::Status RestartFromCopy();

  // What etcdctl prints for arguments in the shell's words, as root once AddUser was called.
  absl::StatusOr<std::string> Ctl(const std::string& arguments) const;
  // Adds a user who may read and write keys that begin with `prefix` only, and has etcd ask for
  // users from now on.
  absl::Status AddUser(const std::string& user, const std::string& password,
                       const std::string& prefix);

 private:
  explicit EtcdServer(EtcdServerOptions options) : options_(std::move(options)) {}

  absl::Status Prepare();
  absl::Status Launch();
  absl::Status WaitUntilReady();
  std::vector<std::string> Arguments() const;

  const EtcdServerOptions options_;
  const TemporaryFolder folder_;
  std::string endpoint_;
  std::string peer_;
  int ready_socket_ = -1;  // etcd says there that it serves, as it would to systemd
  pid_t pid_ = -1;
  bool asks_for_users_ = false;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_ETCD_ETCD_SERVER_H_
