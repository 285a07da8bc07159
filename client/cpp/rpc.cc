#include "client/cpp/rpc.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace attic {
std::chrono::nanoseconds WaitTime(absl::Time deadline) {
  const absl::Duration left = deadline - absl::Now();
  return absl::ToChronoNanoseconds(std::clamp(left, absl::ZeroDuration(), absl::Hours(1)));
}

absl::Status WaitForConnected(grpc::Channel& channel, const std::string& address,
                              absl::Duration timeout) {
  if (channel.WaitForConnected(absl::ToChronoTime(absl::Now() + timeout))) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("nothing answers at ", address, " within ", absl::FormatDuration(timeout)));
}

}  // namespace attic
