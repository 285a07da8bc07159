// attic::Client for a single store.
#ifndef ATTIC_CLIENT_CPP_REMOTE_CLIENT_H_
#define ATTIC_CLIENT_CPP_REMOTE_CLIENT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "client/cpp/client.h"

namespace attic {

// Connects to the store at options.address, one address; errors as of ConnectClient.
absl::StatusOr<std::unique_ptr<Client>> ConnectStore(const ClientOptions& options);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_REMOTE_CLIENT_H_
