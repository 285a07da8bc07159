#include "server/cluster/liveness/socket_address.h"

#include <netdb.h>

#include <cstring>

namespace attic {
namespace {

std::vector<SocketAddress> Resolve(const std::string& address, int flags) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return {};
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | flags;
  addrinfo* found = nullptr;
  if (host.empty() || port.empty() ||
      getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return {};
  }
  std::vector<SocketAddress> addresses;
  for (const addrinfo* to = found; to != nullptr && addresses.size() < kAddressesOfNameMax;
       to = to->ai_next) {
    SocketAddress resolved;
    if (to->ai_addrlen > sizeof(resolved.storage)) continue;
    std::memcpy(&resolved.storage, to->ai_addr, to->ai_addrlen);
    resolved.size = to->ai_addrlen;
    addresses.push_back(resolved);
  }
  freeaddrinfo(found);
  return addresses;
}

}  // namespace

std::vector<SocketAddress> ResolveAddress(const std::string& address) {
  return Resolve(address, 0);
}

std::vector<SocketAddress> ResolveNumericAddress(const std::string& address) {
  return Resolve(address, AI_NUMERICHOST);
}

}  // namespace attic
