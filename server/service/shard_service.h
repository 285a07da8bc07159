// gRPC handlers of attic.v1.ShardService.
#ifndef ATTIC_SERVER_SERVICE_SHARD_SERVICE_H_
#define ATTIC_SERVER_SERVICE_SHARD_SERVICE_H_

#include <cstddef>
#include <string>

#include "api/limits.h"
#include "attic/v1/shard.grpc.pb.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"
#include "server/service/stream_registry.h"
#include "server/session/session_store.h"

namespace attic {

// What the handlers work with; everything outlives the server.
struct ShardContext {
  SessionStore& store;
  SlotGate& gate;
  Executor& call_executor;      // calls; many wait for the disk
  size_t calls_together_max;    // of one message
  Executor& transfer_executor;  // what other nodes read, kept apart from what callers wait for
  StreamRegistry& streams;
  CallMetrics& metrics;
  std::string boot_id;
  Limits limits;
};

class ShardServiceImpl final : public v1::ShardService::CallbackService {
 public:
  explicit ShardServiceImpl(const ShardContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* Call(grpc::CallbackServerContext* context,
                                 const v1::ShardCalls* request,
                                 v1::ShardResults* response) override;
  grpc::ServerWriteReactor<v1::ShardInventory>* Inventory(
      grpc::CallbackServerContext* context, const v1::InventoryRequest* request) override;
  grpc::ServerUnaryReactor* Digest(grpc::CallbackServerContext* context,
                                   const v1::DigestRequest* request,
                                   v1::DigestResponse* response) override;
  grpc::ServerWriteReactor<v1::AppendRequest>* ReadRows(
      grpc::CallbackServerContext* context, const v1::ReadRowsRequest* request) override;

 private:
  absl::Status CheckClustered() const;

  const ShardContext context_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_SHARD_SERVICE_H_
