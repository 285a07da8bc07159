// Whom to connect to: a single store, or a cluster of them.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "attic/v1/cluster.grpc.pb.h"
#include "base/status_macros.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/cluster_client.h"
#include "client/cpp/cluster/rpc_node_link.h"
#include "client/cpp/remote_client.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"
#include "wire/convert_cluster.h"

namespace attic {
namespace {

constexpr absl::Duration kRetryPause = absl::Milliseconds(50);

// The cluster's map as the store at `address` knows it; FAILED_PRECONDITION or UNIMPLEMENTED when
// it is in no cluster.
absl::StatusOr<ClusterMap> AskForMap(const std::string& address, const ClientOptions& options,
                                     absl::Time deadline) {
  const std::shared_ptr<grpc::Channel> channel =
      wire::MakeChannel(address, options.limits.message_bytes_max);
  const absl::Duration left = std::max(absl::ZeroDuration(), deadline - absl::Now());
  ATTIC_RETURN_IF_ERROR(WaitForConnected(*channel, address, left));
  const auto stub = v1::ClusterService::NewStub(channel);
  ATTIC_ASSIGN_OR_RETURN(
      const v1::GetMapResponse response,
      CallUnary<v1::GetMapResponse>(v1::GetMapRequest(), deadline,
                                    [&](auto... arguments) { return stub->GetMap(arguments...); }));
  return wire::FromWire(response.map());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> ConnectClient(const ClientOptions& options) {
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  std::vector<std::string> addresses = absl::StrSplit(options.address, ',', absl::SkipWhitespace());
  if (addresses.empty()) return absl::InvalidArgumentError("address: is empty");
  absl::Status first_failure;
  do {
    for (size_t i = 0; i < addresses.size(); ++i) {
      // The others have their turn while there is time.
      const absl::Duration share =
          (deadline - absl::Now()) / static_cast<double>(addresses.size() - i);
      absl::StatusOr<ClusterMap> map =
          AskForMap(addresses[i], options, absl::Now() + std::max(share, kRetryPause));
      if (map.ok()) {
        const Limits limits = options.limits;
        return MakeClusterClient(
            options,
            [limits](const std::string& address) { return MakeRpcNodeLink(address, limits); },
            *std::move(map), std::move(addresses));
      }
      if (absl::IsFailedPrecondition(map.status()) || absl::IsUnimplemented(map.status())) {
        ClientOptions one = options;
        one.address = addresses[i];
        return ConnectStore(one);
      }
      first_failure.Update(map.status());
    }
    // All may be starting.
    absl::SleepFor(std::min(kRetryPause, std::max(absl::ZeroDuration(), deadline - absl::Now())));
  } while (absl::Now() < deadline);
  return absl::Status(first_failure.code(),
                      absl::StrCat("no store answers at ", options.address, ": ",
                                   std::string(first_failure.message())));
}

}  // namespace attic
