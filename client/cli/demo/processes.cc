#include "client/cli/demo/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace attic::cli {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(10);
// Someone who presses Ctrl-C does not wait for servers to drain calls that nobody waits for.
constexpr absl::Duration kSignalStopTimeout = absl::Milliseconds(300);
constexpr size_t kLineBytesMax = 4096;

// The processes that run, for the signal thread.
struct RunningProcesses {
  std::atomic<bool> ended_by_signal{false};
  Mutex mutex;
  std::set<pid_t> pids ATTIC_GUARDED_BY(mutex);
};

RunningProcesses& Running() {
  static auto* const running = new RunningProcesses;  // outlives every thread
  return *running;
}

sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

// True once the process is gone and collected.
bool WaitForExit(pid_t pid, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const pid_t done = waitpid(pid, nullptr, WNOHANG);
    if (done == pid || (done < 0 && errno == ECHILD)) return true;
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(kPollInterval);
  }
}

void StopProcess(pid_t pid, absl::Duration timeout) {
  kill(pid, SIGTERM);
  if (WaitForExit(pid, timeout)) return;
  kill(pid, SIGKILL);
  WaitForExit(pid, absl::InfiniteDuration());
}

[[noreturn]] void StopAllAndExit(int signal) {
  Running().ended_by_signal = true;
  std::set<pid_t> pids;
  {
    MutexLock lock(Running().mutex);
    pids = Running().pids;
  }
  for (const pid_t pid : pids) kill(pid, SIGTERM);
  for (const pid_t pid : pids) StopProcess(pid, kSignalStopTimeout);
  _exit(128 + signal);
}

// Between fork and exec only async-signal-safe calls are allowed.
[[noreturn]] void RunChild(pid_t parent, int output_fd, char* const* argv) {
  setpgid(0, 0);  // a Ctrl-C on the terminal goes to the demo alone, which stops us in order
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl
  dup2(output_fd, STDOUT_FILENO);
  dup2(output_fd, STDERR_FILENO);
  const sigset_t signals = EndSignals();
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const std::string& binary, const std::vector<std::string>& arguments,
    const std::string& ready_prefix, absl::Duration timeout) {
  if (access(binary.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(binary, ": ", std::strerror(errno)));
  }
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2 failed");
  std::vector<std::string> owned = {binary};
  owned.insert(owned.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& argument : owned) argv.push_back(argument.data());
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  pid_t pid = 0;
  {
    MutexLock lock(Running().mutex);  // so that a signal finds the process once it runs
    pid = fork();
    if (pid == 0) RunChild(parent, pipe_fds[1], argv.data());
    if (pid > 0) Running().pids.insert(pid);
  }
  close(pipe_fds[1]);
  if (pid < 0) {
    close(pipe_fds[0]);
    return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  }
  std::unique_ptr<ServerProcess> process(
      new ServerProcess(std::filesystem::path(binary).filename().string(), pid, pipe_fds[0]));
  ATTIC_RETURN_IF_ERROR(process->WaitUntilReady(ready_prefix, timeout));
  return process;
}

ServerProcess::~ServerProcess() {
  Stop();
  if (reader_.joinable()) reader_.join();
  close(output_fd_);
}

void ServerProcess::Stop() {
  if (std::exchange(stopped_, true)) return;
  // The signal thread stops the processes and ends this one. Without waiting for it the failure of
  // whatever used them would be reported as the reason of the end.
  while (Running().ended_by_signal) absl::SleepFor(kPollInterval);
  StopProcess(pid_, kStopTimeout);
  MutexLock lock(Running().mutex);
  Running().pids.erase(pid_);
}

void ServerProcess::Kill() {
  if (!stopped_) kill(pid_, SIGKILL);
  Stop();
}

std::string ServerProcess::last_line() const {
  MutexLock lock(mutex_);
  return last_line_;
}

absl::Status ServerProcess::WaitUntilReady(const std::string& ready_prefix,
                                           absl::Duration timeout) {
  reader_ = std::thread([this, ready_prefix] { ReadOutput(ready_prefix); });
  if (ready_prefix.empty()) return absl::OkStatus();
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(mutex_);
  while (ready_address_.empty() && !output_ended_ && absl::Now() < deadline) {
    changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(deadline - absl::Now()));
  }
  address_ = ready_address_;
  if (!address_.empty()) return absl::OkStatus();
  std::string problem = output_ended_ ? " ended before it was ready"
                                      : " was not ready in " + absl::FormatDuration(timeout);
  if (!last_line_.empty()) problem += ": " + last_line_;
  return absl::UnavailableError(absl::StrCat(name_, problem));
}

void ServerProcess::ReadOutput(const std::string& ready_prefix) {
  std::string line;
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(output_fd_, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    for (const char c : std::string_view(buffer, static_cast<size_t>(count))) {
      if (c == '\n') {
        OnLine(std::exchange(line, {}), ready_prefix);
      } else if (line.size() < kLineBytesMax) {
        line += c;
      }
    }
  }
  if (!line.empty()) OnLine(line, ready_prefix);
  MutexLock lock(mutex_);
  output_ended_ = true;
  changed_.NotifyAll();
}

void ServerProcess::OnLine(const std::string& line, const std::string& ready_prefix) {
  MutexLock lock(mutex_);
  if (!line.empty()) last_line_ = line;
  if (ready_address_.empty() && line.starts_with(ready_prefix + " ")) {
    const std::string rest = line.substr(ready_prefix.size() + 1);
    ready_address_ = rest.substr(0, rest.find(' '));
  }
  changed_.NotifyAll();
}

void StopProcessesOnSignals() {
  const sigset_t signals = EndSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // inherited by every later thread
  std::thread([signals] {
    int signal = 0;
    while (sigwait(&signals, &signal) != 0) {
    }
    StopAllAndExit(signal);
  }).detach();
}

std::string BesideThisBinary(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (error ? std::filesystem::path(name) : self.parent_path() / name).string();
}

}  // namespace attic::cli
