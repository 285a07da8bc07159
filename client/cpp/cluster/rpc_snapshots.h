// Snapshots from and to one node over gRPC, for threads that wait for them.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_RPC_SNAPSHOTS_H_
#define ATTIC_CLIENT_CPP_CLUSTER_RPC_SNAPSHOTS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attic/v1/session.grpc.pb.h"
#include "client/cpp/cluster/node_link.h"

namespace attic {

// As NodeLink::Export.
absl::Status RpcExport(v1::SessionService::Stub& stub, const v1::ExportRequest& request,
                       absl::Time deadline, const LinkChunkSink& take);
// As NodeLink::OpenImport. `stub` must outlive the result.
std::unique_ptr<LinkImport> OpenRpcImport(v1::SessionService::Stub& stub, absl::Time deadline);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_RPC_SNAPSHOTS_H_
