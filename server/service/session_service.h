// gRPC handlers of attic.v1.SessionService and attic.v1.AdminService.
#ifndef ATTIC_SERVER_SERVICE_SESSION_SERVICE_H_
#define ATTIC_SERVER_SERVICE_SESSION_SERVICE_H_

#include "attic/v1/admin.grpc.pb.h"
#include "attic/v1/session.grpc.pb.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"
#include "server/service/stream_registry.h"
#include "server/session/session_store.h"

namespace attic {

// Both borrow what they are given, only translate, and record every call in `metrics`. Reads of
// what is here pass the gate: whoever looks on asks this node.
class SessionServiceImpl final : public v1::SessionService::CallbackService {
 public:
  // Whole sessions come and go on threads of `transfer_executor`.
  SessionServiceImpl(SessionStore& store, SlotGate& gate, Executor& executor,
                     Executor& transfer_executor, StreamRegistry& streams, CallMetrics& metrics)
      : store_(store),
        gate_(gate),
        executor_(executor),
        transfer_executor_(transfer_executor),
        streams_(streams),
        metrics_(metrics) {}

  grpc::ServerUnaryReactor* Open(grpc::CallbackServerContext* context,
                                 const v1::OpenRequest* request,
                                 v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* Plan(grpc::CallbackServerContext* context,
                                 const v1::PlanRequest* request,
                                 v1::PlanResponse* response) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const v1::ListRequest* request,
                                 v1::ListResponse* response) override;
  grpc::ServerUnaryReactor* Fork(grpc::CallbackServerContext* context,
                                 const v1::ForkRequest* request,
                                 v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* Truncate(grpc::CallbackServerContext* context,
                                     const v1::TruncateRequest* request,
                                     v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* Flush(grpc::CallbackServerContext* context,
                                  const v1::FlushRequest* request,
                                  v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* ExtendPrefix(grpc::CallbackServerContext* context,
                                         const v1::ExtendPrefixRequest* request,
                                         v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* RenewLease(grpc::CallbackServerContext* context,
                                       const v1::RenewLeaseRequest* request,
                                       v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* Pin(grpc::CallbackServerContext* context, const v1::PinRequest* request,
                                v1::SessionDescription* response) override;
  grpc::ServerUnaryReactor* Close(grpc::CallbackServerContext* context,
                                  const v1::CloseRequest* request,
                                  v1::CloseResponse* response) override;
  grpc::ServerWriteReactor<v1::SnapshotChunk>* Export(grpc::CallbackServerContext* context,
                                                      const v1::ExportRequest* request) override;
  grpc::ServerReadReactor<v1::SnapshotChunk>* Import(grpc::CallbackServerContext* context,
                                                     v1::SessionDescription* response) override;

 private:
  SessionStore& store_;
  SlotGate& gate_;
  Executor& executor_;
  Executor& transfer_executor_;
  StreamRegistry& streams_;
  CallMetrics& metrics_;
};

// The status is the store's, with the epoch of the node's map.
class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  AdminServiceImpl(SessionStore& store, SlotGate& gate, Executor& executor, CallMetrics& metrics)
      : store_(store), gate_(gate), executor_(executor), metrics_(metrics) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::StoreStatus* response) override;

 private:
  SessionStore& store_;
  SlotGate& gate_;
  Executor& executor_;
  CallMetrics& metrics_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_SESSION_SERVICE_H_
