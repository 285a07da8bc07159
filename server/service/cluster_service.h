// gRPC handlers of attic.v1.ClusterService.
#ifndef ATTIC_SERVER_SERVICE_CLUSTER_SERVICE_H_
#define ATTIC_SERVER_SERVICE_CLUSTER_SERVICE_H_

#include "attic/v1/cluster.grpc.pb.h"
#include "server/cluster/repair_progress.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"

namespace attic {

// What the handlers work with; everything outlives the server.
struct ClusterContext {
  SlotGate& gate;
  RepairProgressSource repair;  // null: the node repairs nothing
  Executor& executor;
  CallMetrics& metrics;
};

class ClusterServiceImpl final : public v1::ClusterService::CallbackService {
 public:
  explicit ClusterServiceImpl(ClusterContext context) : context_(std::move(context)) {}

  grpc::ServerUnaryReactor* GetMap(grpc::CallbackServerContext* context,
                                   const v1::GetMapRequest* request,
                                   v1::GetMapResponse* response) override;
  grpc::ServerUnaryReactor* GetRepair(grpc::CallbackServerContext* context,
                                      const v1::GetRepairRequest* request,
                                      v1::RepairStatus* response) override;
  grpc::ServerUnaryReactor* ChangeNode(grpc::CallbackServerContext* context,
                                       const v1::ChangeNodeRequest* request,
                                       v1::ChangeNodeResponse* response) override;
  grpc::ServerUnaryReactor* Rebalance(grpc::CallbackServerContext* context,
                                      const v1::RebalanceRequest* request,
                                      v1::RebalanceResponse* response) override;

 private:
  const ClusterContext context_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_CLUSTER_SERVICE_H_
