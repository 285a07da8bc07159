#include "tests/unit/metrics/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace attic {
namespace {

constexpr timeval kTimeout{.tv_sec = 20, .tv_usec = 0};

void Check(bool fine, const char* what) {
  if (!fine) throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

RawConnection::RawConnection(const std::string& address)
    : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  Check(socket_ >= 0, "socket");
  setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof(kTimeout));
  setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof(kTimeout));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  Check(connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0, "connect");
}

RawConnection::~RawConnection() { close(socket_); }

void RawConnection::Send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    Check(count > 0, "send");
    sent += static_cast<size_t>(count);
  }
}

std::string RawConnection::ReadAll() {
  std::string all;
  std::array<char, 4096> bytes;
  for (;;) {
    const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
    Check(count >= 0 || errno == ECONNRESET, "recv");
    if (count <= 0) return all;
    all.append(bytes.data(), static_cast<size_t>(count));
  }
}

std::string HttpGet(const std::string& address, const std::string& path) {
  RawConnection connection(address);
  connection.Send("GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\n\r\n");
  const std::string response = connection.ReadAll();
  if (!response.starts_with("HTTP/1.1 200 ")) return "";
  return response.substr(response.find("\r\n\r\n") + 4);
}

}  // namespace attic
