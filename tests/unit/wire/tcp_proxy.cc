#include "tests/unit/wire/tcp_proxy.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

namespace attic {
namespace {

constexpr int kPollMs = 5;

sockaddr_in Loopback(int port) {
  return {.sin_family = AF_INET,
          .sin_port = htons(static_cast<uint16_t>(port)),
          .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

bool SendAll(int fd, const char* bytes, ssize_t count) {
  while (count > 0) {
    const ssize_t sent = send(fd, bytes, static_cast<size_t>(count), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    count -= sent;
  }
  return true;
}

}  // namespace

TcpProxy::TcpProxy(int port) : port_(port) {
  Set(Flow::kPass, Flow::kPass);
  listening_ = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  ATTIC_CHECK(bind(listening_, reinterpret_cast<sockaddr*>(&address), size) == 0);
  ATTIC_CHECK(listen(listening_, 64) == 0);
  getsockname(listening_, reinterpret_cast<sockaddr*>(&address), &size);
  own_port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

TcpProxy::~TcpProxy() {
  stopping_ = true;
  thread_.join();
  for (const Pipe& pipe : pipes_) {
    close(pipe.fd[0]);
    close(pipe.fd[1]);
  }
  close(listening_);
}

std::string TcpProxy::address() const { return "127.0.0.1:" + std::to_string(own_port_); }

void TcpProxy::Set(Flow to_server, Flow to_caller) {
  flow_[0] = to_server;
  flow_[1] = to_caller;
}

void TcpProxy::Accept() {
  const int caller = accept(listening_, nullptr, nullptr);
  if (caller < 0) return;
  if (flow_[0] == Flow::kSwallow) {
    pipes_.push_back({.fd = {caller, -1}, .lost = {true, true}});
    return;
  }
  const int server = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Loopback(port_);
  if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    close(caller);
    close(server);
    return;
  }
  pipes_.push_back({.fd = {caller, server}});
}

bool TcpProxy::Carry(Pipe& pipe, int from) {
  char bytes[1 << 16];
  const ssize_t count = recv(pipe.fd[from], bytes, sizeof(bytes), MSG_DONTWAIT);
  if (count <= 0) return false;
  pipe.lost[from] = pipe.lost[from] || flow_[from] == Flow::kSwallow;
  return pipe.lost[from] || SendAll(pipe.fd[1 - from], bytes, count);
}

void TcpProxy::Run() {
  while (!stopping_) {
    const bool waiting = flow_[0] == Flow::kHold;
    std::vector<pollfd> polled = {{.fd = waiting ? -1 : listening_, .events = POLLIN}};
    for (const Pipe& pipe : pipes_) {
      for (int from = 0; from < 2; ++from) {
        const bool held = flow_[from] == Flow::kHold;
        polled.push_back({.fd = held ? -1 : pipe.fd[from], .events = POLLIN});
      }
    }
    if (poll(polled.data(), polled.size(), kPollMs) <= 0) continue;
    std::vector<Pipe> open;
    for (size_t i = 0; i < pipes_.size(); ++i) {
      bool alive = true;
      for (int from = 0; from < 2 && alive; ++from) {
        if (polled[1 + 2 * i + static_cast<size_t>(from)].revents != 0) {
          alive = Carry(pipes_[i], from);
        }
      }
      if (alive) {
        open.push_back(pipes_[i]);
      } else {
        close(pipes_[i].fd[0]);
        close(pipes_[i].fd[1]);
      }
    }
    pipes_ = std::move(open);
    if (polled[0].revents != 0) Accept();
  }
}

}  // namespace attic
