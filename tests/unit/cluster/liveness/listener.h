// A port of the loopback interface, for tests of who listens.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_LIVENESS_LISTENER_H_
#define ATTIC_TESTS_UNIT_CLUSTER_LIVENESS_LISTENER_H_

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "base/check.h"
#include "server/cluster/liveness/socket_address.h"

namespace attic {

// Listens on a port of 127.0.0.1, as a store that accepts no calls does. Not thread-safe.
class Listener {
 public:
  static constexpr int kBacklog = 1024;

  explicit Listener(int backlog = kBacklog) { Listen(backlog); }

  uint16_t port() const { return ntohs(address_.sin_port); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port()); }
  const sockaddr* socket_address() const { return reinterpret_cast<const sockaddr*>(&address_); }

  // As when the process ends: the port refuses.
  void Close() { socket_ = OwnedDescriptor(); }
  // On the same port.
  void Listen(int backlog = kBacklog) {
    OwnedDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int yes = 1;
    setsockopt(socket.number(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address_);
    auto* const address = reinterpret_cast<sockaddr*>(&address_);
    ATTIC_CHECK(bind(socket.number(), address, size) == 0 &&
                listen(socket.number(), backlog) == 0 &&
                getsockname(socket.number(), address, &size) == 0);
    socket_ = std::move(socket);
  }
  // Takes a connection and closes it. False when there is none in `patience`.
  bool Await(absl::Duration patience) const {
    pollfd waiting{.fd = socket_.number(), .events = POLLIN, .revents = 0};
    if (poll(&waiting, 1, static_cast<int>(absl::ToInt64Milliseconds(patience))) != 1) return false;
    const OwnedDescriptor taken(accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC));
    return taken.number() >= 0;
  }

 private:
  sockaddr_in address_{};
  OwnedDescriptor socket_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_LIVENESS_LISTENER_H_
