// The processes the demo starts. Whatever happens to the demo, nothing it started stays behind.
#ifndef ATTIC_CLIENT_CLI_DEMO_PROCESSES_H_
#define ATTIC_CLIENT_CLI_DEMO_PROCESSES_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic::cli {

// A server process that prints "<ready prefix> ADDRESS ..." on stdout once it serves. It is killed
// by the kernel when the thread that started it ends without stopping it.
class ServerProcess {
 public:
  // Starts `binary` and waits for the line; with an empty prefix for nothing. UNAVAILABLE with the
  // process's last line of output when it ends first or takes longer than `timeout`; NOT_FOUND when
  // there is no such binary.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(
      const std::string& binary, const std::vector<std::string>& arguments,
      const std::string& ready_prefix, absl::Duration timeout);

  // Stops the process as Stop does.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // SIGTERM, then SIGKILL after kStopTimeout; returns when the process is gone.
  void Stop();
  // SIGKILL, as a crash would; returns when the process is gone.
  void Kill();

  const std::string& name() const { return name_; }
  const std::string& address() const { return address_; }
  pid_t pid() const { return pid_; }
  // The last line of its output, for error messages. Thread-safe.
  std::string last_line() const;

 private:
  ServerProcess(std::string name, pid_t pid, int output_fd)
      : name_(std::move(name)), pid_(pid), output_fd_(output_fd) {}

  absl::Status WaitUntilReady(const std::string& ready_prefix, absl::Duration timeout);
  void ReadOutput(const std::string& ready_prefix);
  void OnLine(const std::string& line, const std::string& ready_prefix);

  const std::string name_;
  const pid_t pid_;
  const int output_fd_;  // stdout and stderr of the process
  std::string address_;
  bool stopped_ = false;
  std::thread reader_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::string ready_address_ ATTIC_GUARDED_BY(mutex_);
  std::string last_line_ ATTIC_GUARDED_BY(mutex_);
  bool output_ended_ ATTIC_GUARDED_BY(mutex_) = false;
};

inline constexpr absl::Duration kStopTimeout = absl::Seconds(5);

// Turns SIGINT, SIGTERM and SIGHUP into an orderly end: every process started is stopped, then this
// process exits with 128 + the signal. Call once, before other threads start.
void StopProcessesOnSignals();

// The path of `name` in the folder of the running binary.
std::string BesideThisBinary(const std::string& name);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_PROCESSES_H_
