// Addresses to connect to, and the descriptors of what is connected.
#ifndef ATTIC_SERVER_CLUSTER_LIVENESS_SOCKET_ADDRESS_H_
#define ATTIC_SERVER_CLUSTER_LIVENESS_SOCKET_ADDRESS_H_

#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

namespace attic {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

inline constexpr size_t kAddressesOfNameMax = 8;

// The addresses of HOST:PORT, where HOST may be a name, an IPv4 address, or an IPv6 address in
// brackets; at most kAddressesOfNameMax, and none when there are none. Waits for name servers, for
// as long as the system's resolver is set to.
std::vector<SocketAddress> ResolveAddress(const std::string& address);
// The same without waiting: of a host that is a name, none.
std::vector<SocketAddress> ResolveNumericAddress(const std::string& address);

// Closes what it owns. Moves only.
class OwnedDescriptor {
 public:
  explicit OwnedDescriptor(int number = -1) : number_(number) {}
  ~OwnedDescriptor() {
    if (number_ >= 0) close(number_);
  }
  OwnedDescriptor(OwnedDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  OwnedDescriptor& operator=(OwnedDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }

  int number() const { return number_; }  // negative: none

 private:
  int number_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_LIVENESS_SOCKET_ADDRESS_H_
