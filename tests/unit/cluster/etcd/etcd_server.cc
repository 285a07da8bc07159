#include "tests/unit/cluster/etcd/etcd_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr int kStartTries = 3;  // another process may take the port meanwhile
constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr int kPollMs = 50;

absl::Status Failed(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// "127.0.0.1:PORT" twice, of two ports that nobody used just now.
absl::StatusOr<std::vector<std::string>> FreeEndpoints() {
  std::vector<std::string> endpoints;
  int sockets[2] = {-1, -1};
  for (int& fd : sockets) {
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      return Failed("bind");
    }
    endpoints.push_back(absl::StrCat("127.0.0.1:", ntohs(address.sin_port)));
  }
  for (const int fd : sockets) close(fd);
  return endpoints;
}

// Between fork and exec only async-signal-safe calls are allowed.
[[noreturn]] void RunChild(pid_t parent, int log_fd, char* const* argv, char* const* environment) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  execvpe(argv[0], argv, environment);
  _exit(127);
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::string TextOf(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void ReplaceFolder(const std::string& from, const std::string& to) {
  std::filesystem::remove_all(to);
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

}  // namespace

absl::StatusOr<std::unique_ptr<EtcdServer>> EtcdServer::Start(const EtcdServerOptions& options) {
  absl::Status status;
  for (int tries = 0; tries < kStartTries; ++tries) {
    std::unique_ptr<EtcdServer> server(new EtcdServer(options));
    ATTIC_RETURN_IF_ERROR(server->Prepare());
    status = server->Launch();
    if (status.ok()) return server;
  }
  return status;
}

EtcdServer::~EtcdServer() {
  Kill();
  if (ready_socket_ >= 0) close(ready_socket_);
}

EtcdOptions EtcdServer::ClientOptions() const {
  return EtcdOptions{.endpoints = {endpoint_},
                     .connect_timeout = absl::Seconds(5),
                     .call_timeout = absl::Seconds(5),
                     .ca_file = options_.ca_file,
                     .cert_file = options_.cert_file,
                     .key_file = options_.key_file};
}

absl::Status EtcdServer::Prepare() {
  ATTIC_ASSIGN_OR_RETURN(const std::vector<std::string> endpoints, FreeEndpoints());
  endpoint_ = endpoints[0];
  peer_ = absl::StrCat("http://", endpoints[1]);

  ready_socket_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = folder_.file("ready");
  if (path.size() >= sizeof(address.sun_path)) return absl::InternalError("TMPDIR is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (bind(ready_socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return Failed(path);
  }
  return absl::OkStatus();
}

std::vector<std::string> EtcdServer::Arguments() const {
  const bool tls = !options_.ca_file.empty();
  const std::string url = absl::StrCat(tls ? "https://" : "http://", endpoint_);
  std::vector<std::string> arguments = {
      "etcd", "--name=test", absl::StrCat("--data-dir=", folder_.file("data")),
      absl::StrCat("--listen-client-urls=", url), absl::StrCat("--advertise-client-urls=", url),
      absl::StrCat("--listen-peer-urls=", peer_),
      absl::StrCat("--initial-advertise-peer-urls=", peer_),
      absl::StrCat("--initial-cluster=test=", peer_), "--logger=zap", "--log-outputs=stderr",
      // A member that is alone waits for an election before it serves; and the least time of a
      // lease is one and a half of it, in whole seconds.
      "--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync"};
  if (tls) {
    for (const std::string& argument :
         {absl::StrCat("--trusted-ca-file=", options_.ca_file),
          absl::StrCat("--cert-file=", options_.cert_file),
          absl::StrCat("--key-file=", options_.key_file), std::string("--client-cert-auth")}) {
      arguments.push_back(argument);
    }
  }
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  return arguments;
}

absl::Status EtcdServer::Launch() {
  std::vector<std::string> arguments = Arguments();
  std::vector<std::string> variables = {absl::StrCat("NOTIFY_SOCKET=", folder_.file("ready"))};
  for (const char* name : {"PATH", "HOME", "TMPDIR"}) {
    if (const char* value = std::getenv(name)) variables.push_back(absl::StrCat(name, "=", value));
  }
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> environment = Pointers(variables);
  const std::string log_path = folder_.file("log");
  const int log_fd = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log_fd < 0) return Failed(log_path);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) RunChild(parent, log_fd, argv.data(), environment.data());
  close(log_fd);
  if (pid_ < 0) return Failed("fork");
  const absl::Status ready = WaitUntilReady();
  if (ready.ok()) return ready;
  Kill();
  return absl::InternalError(absl::StrCat(ready.message(), "\n", TextOf(log_path)));
}

absl::Status EtcdServer::WaitUntilReady() {
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (absl::Now() < deadline) {
    pollfd ready = {.fd = ready_socket_, .events = POLLIN};
    if (poll(&ready, 1, kPollMs) > 0) {
      char message[256];
      if (recv(ready_socket_, message, sizeof(message), 0) > 0) return absl::OkStatus();
    }
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return absl::InternalError("etcd ended (is the package etcd-server installed?)");
    }
  }
  return absl::InternalError("etcd is not ready in time");
}

void EtcdServer::Pause() {
  kill(pid_, SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

void EtcdServer::Resume() { kill(pid_, SIGCONT); }

void EtcdServer::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

absl::Status EtcdServer::Restart() {
  Kill();
  return Launch();
}

absl::Status EtcdServer::Wipe() {
  Kill();
  std::filesystem::remove_all(folder_.file("data"));
  asks_for_users_ = false;
  return Launch();
}

absl::Status EtcdServer::RestartAndCopy() {
  Kill();
  ReplaceFolder(folder_.file("data"), folder_.file("copy"));
  return Launch();
}

absl::Status EtcdServer::RestartFromCopy() {
  Kill();
  ReplaceFolder(folder_.file("copy"), folder_.file("data"));
  return Launch();
}

absl::StatusOr<std::string> EtcdServer::Ctl(const std::string& arguments) const {
  std::string command = "ETCDCTL_API=3 etcdctl";
  if (!options_.ca_file.empty()) {
    absl::StrAppend(&command, " --cacert=", options_.ca_file, " --cert=", options_.cert_file,
                    " --key=", options_.key_file);
  }
  if (asks_for_users_) absl::StrAppend(&command, " --user=root:root");
  absl::StrAppend(&command, " --endpoints=", endpoint_, " ", arguments, " 2>&1");
  std::FILE* pipe = popen(command.c_str(), "re");
  if (pipe == nullptr) return Failed("popen");
  std::string output;
  char buffer[4096];
  while (const size_t bytes = std::fread(buffer, 1, sizeof(buffer), pipe)) {
    output.append(buffer, bytes);
  }
  if (pclose(pipe) != 0) return absl::InternalError(absl::StrCat(command, ": ", output));
  return output;
}

absl::Status EtcdServer::AddUser(const std::string& user, const std::string& password,
                                 const std::string& prefix) {
  std::vector<std::string> commands = {
      absl::StrCat("user add ", user, ":", password), absl::StrCat("role add ", user),
      absl::StrCat("role grant-permission ", user, " --prefix=true readwrite ", prefix),
      absl::StrCat("user grant-role ", user, " ", user)};
  if (!asks_for_users_) {
    for (const char* command :
         {"user add root:root", "role add root", "user grant-role root root", "auth enable"}) {
      commands.push_back(command);
    }
  }
  for (const std::string& command : commands) ATTIC_RETURN_IF_ERROR(Ctl(command).status());
  asks_for_users_ = true;
  return absl::OkStatus();
}

}  // namespace attic
