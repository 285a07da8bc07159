#include "server/metrics/http_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "server/service/listen_address.h"

namespace attic {
namespace {

constexpr int kListenBacklog = 64;
// How soon connections are taken again after the process ran out of files.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

std::string Respond(const char* status, const std::string& content_type, const std::string& body,
                    bool with_body = true) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", content_type,
                      "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n",
                      with_body ? body : "");
}

std::string Refuse(const char* status) {
  return Respond(status, "text/plain; charset=utf-8", absl::StrCat(status, "\n"));
}

absl::StatusOr<Descriptor> Bind(const addrinfo& to) {
  Descriptor socket(::socket(to.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int yes = 1;
  if (socket.number() < 0 ||
      setsockopt(socket.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      bind(socket.number(), to.ai_addr, to.ai_addrlen) != 0 ||
      listen(socket.number(), kListenBacklog) != 0) {
    return absl::UnavailableError(std::strerror(errno));
  }
  return socket;
}

absl::StatusOr<Descriptor> Listen(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (absl::StartsWith(address, "unix:") || colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen_address: ", address, " is not host:port"));
  }
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": ", gai_strerror(error)));
  }
  absl::StatusOr<Descriptor> socket = absl::UnavailableError("no such address");
  for (const addrinfo* to = found; to != nullptr && !socket.ok(); to = to->ai_next) {
    socket = Bind(*to);
  }
  freeaddrinfo(found);
  if (socket.ok()) return socket;
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address, ": ", std::string(socket.status().message())));
}

int PortOf(const Descriptor& socket) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  if (getsockname(socket.number(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  // The port is at the same place in both kinds.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
}

// A client: first its request is read, then the response is written.
class Connection {
 public:
  Connection(Descriptor socket, absl::Time deadline)
      : socket_(std::move(socket)), deadline_(deadline) {}

  absl::Time deadline() const { return deadline_; }
  pollfd Awaited() const {
    return {.fd = socket_.number(),
            .events = static_cast<short>(response_.empty() ? POLLIN : POLLOUT)};
  }

  // Reads or writes what there is. False when it is over.
  bool Advance(const HttpServerOptions& options) {
    if (response_.empty() && !Read(options)) return false;
    return response_.empty() || Write();
  }

 private:
  bool Read(const HttpServerOptions& options) {
    std::array<char, 4096> bytes;
    const ssize_t count = recv(socket_.number(), bytes.data(), bytes.size(), 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return false;
    head_.append(bytes.data(), static_cast<size_t>(count));
    if (const size_t end = head_.find("\r\n\r\n"); end != std::string::npos) {
      response_ = AnswerHttp(options, head_.substr(0, end + 4));
    } else if (head_.size() > HttpServer::kHeadBytesMax) {
      response_ = Refuse("431 Request Header Fields Too Large");
    }
    return true;
  }

  bool Write() {
    const ssize_t count = send(socket_.number(), response_.data() + written_,
                               response_.size() - written_, MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    written_ += static_cast<size_t>(count);
    return written_ < response_.size();
  }

  Descriptor socket_;
  absl::Time deadline_;
  std::string head_;
  std::string response_;  // empty: the request is not complete
  size_t written_ = 0;
};

class HttpServerImpl final : public HttpServer {
 public:
  HttpServerImpl(HttpServerOptions options, Descriptor listener, Descriptor stop)
      : options_(std::move(options)),
        address_(WithPort(options_.listen_address, PortOf(listener))),
        listener_(std::move(listener)),
        stop_(std::move(stop)),
        thread_([this] { Run(); }) {}

  ~HttpServerImpl() override {
    eventfd_write(stop_.number(), 1);
    thread_.join();
  }

  const std::string& address() const override { return address_; }

 private:
  void Run() {
    std::vector<pollfd> awaited;
    for (;;) {
      awaited = {{.fd = stop_.number(), .events = POLLIN}, {.fd = -1, .events = POLLIN}};
      const absl::Time now = absl::Now();
      absl::Time wake = absl::InfiniteFuture();
      if (now < accept_after_) {
        wake = accept_after_;
      } else if (connections_.size() < kConnectionsMax) {
        awaited[1].fd = listener_.number();
      }
      for (const Connection& connection : connections_) {
        awaited.push_back(connection.Awaited());
        wake = std::min(wake, connection.deadline());
      }
      const timespec timeout = absl::ToTimespec(std::max(wake - now, absl::ZeroDuration()));
      ppoll(awaited.data(), awaited.size(), wake == absl::InfiniteFuture() ? nullptr : &timeout,
            nullptr);
      if (awaited[0].revents != 0) return;
      AdvanceAll(awaited);
      if (awaited[1].revents != 0) Accept();
    }
  }

  // `awaited` has the connections from its third entry on.
  void AdvanceAll(const std::vector<pollfd>& awaited) {
    const absl::Time now = absl::Now();
    std::vector<Connection> open;
    for (size_t i = 0; i < connections_.size(); ++i) {
      Connection& connection = connections_[i];
      if (awaited[i + 2].revents != 0 && !connection.Advance(options_)) continue;
      if (now < connection.deadline()) open.push_back(std::move(connection));
    }
    connections_ = std::move(open);
  }

  void Accept() {
    const int socket = accept4(listener_.number(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket >= 0) {
      connections_.emplace_back(Descriptor(socket), absl::Now() + options_.patience);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      accept_after_ = absl::Now() + kAcceptPause;
    }
  }

  const HttpServerOptions options_;
  const std::string address_;
  const Descriptor listener_;
  const Descriptor stop_;  // readable: the thread ends
  // Of the thread.
  std::vector<Connection> connections_;
  absl::Time accept_after_ = absl::InfinitePast();
  // Last: it uses everything above.
  std::thread thread_;
};

}  // namespace

std::string AnswerHttp(const HttpServerOptions& options, const std::string& head) {
  const std::vector<std::string> words = absl::StrSplit(head.substr(0, head.find("\r\n")), ' ');
  if (words.size() != 3 || !absl::StartsWith(words[2], "HTTP/1.")) return Refuse("400 Bad Request");
  if (words[0] != "GET" && words[0] != "HEAD") return Refuse("405 Method Not Allowed");
  if (words[1].substr(0, words[1].find('?')) != options.path) return Refuse("404 Not Found");
  return Respond("200 OK", options.content_type, options.document(), words[0] == "GET");
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options) {
  ATTIC_ASSIGN_OR_RETURN(Descriptor listener, Listen(options.listen_address));
  Descriptor stop(eventfd(0, EFD_CLOEXEC));
  if (stop.number() < 0) return absl::UnavailableError("no file is left to open");
  return std::make_unique<HttpServerImpl>(std::move(options), std::move(listener), std::move(stop));
}

}  // namespace attic
