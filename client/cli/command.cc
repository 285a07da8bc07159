#include "client/cli/command.h"

#include <iostream>

#include "absl/time/clock.h"

namespace attic::cli {

absl::StatusOr<std::unique_ptr<Client>> Connect(const GlobalOptions& global) {
  return ConnectClient({.address = global.server});
}

void PrintJson(const nlohmann::ordered_json& document) {
  std::cout << document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
            << std::endl;
}

absl::Time CommandDeadline() { return absl::Now() + absl::Seconds(60); }

}  // namespace attic::cli
