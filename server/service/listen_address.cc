#include "server/service/listen_address.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace attic {

bool IsLoopbackAddress(const std::string& listen_address) {
  if (absl::StartsWith(listen_address, "unix:")) return true;
  const std::string host = listen_address.substr(0, listen_address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // A name such as 127.evil.example is no address of this machine.
  return absl::StartsWith(host, "127.") &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::Status CheckListenAddress(const std::string& field, const std::string& address,
                                bool allow_remote) {
  if (!absl::StartsWith(address, "unix:") && address.rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", address, " is neither host:port nor unix:PATH"));
  }
  if (!allow_remote && !IsLoopbackAddress(address)) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", address,
                     " is reachable from other machines, and connections are not secured; "
                     "--allow-insecure-remote permits it"));
  }
  return absl::OkStatus();
}

std::string WithPort(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix:")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace attic
