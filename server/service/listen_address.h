// Addresses that servers listen on: host:port, port 0 for any free one, or unix:PATH.
#ifndef ATTIC_SERVER_SERVICE_LISTEN_ADDRESS_H_
#define ATTIC_SERVER_SERVICE_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace attic {

// True for 127.x.y.z, [::1], localhost and unix: addresses.
bool IsLoopbackAddress(const std::string& listen_address);

// INVALID_ARGUMENT naming `field` for an address of neither form, and for one that other machines
// reach unless `allow_remote`.
absl::Status CheckListenAddress(const std::string& field, const std::string& address,
                                bool allow_remote);

// `address` with the port really bound.
std::string WithPort(const std::string& address, int port);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_LISTEN_ADDRESS_H_
