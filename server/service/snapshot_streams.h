// Sessions as snapshots over gRPC: the streams of Export and Import.
#ifndef ATTIC_SERVER_SERVICE_SNAPSHOT_STREAMS_H_
#define ATTIC_SERVER_SERVICE_SNAPSHOT_STREAMS_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "attic/v1/session.pb.h"
#include "attic/v1/snapshot.pb.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"
#include "server/service/stream_registry.h"
#include "server/session/session_store.h"

namespace attic {

// What the streams work with; everything outlives them.
struct SnapshotContext {
  SessionStore& store;
  SlotGate& gate;
  Executor& executor;
  StreamRegistry& streams;
  CallMetrics& metrics;
};

// Each works on one chunk at a time on the executor, and has gRPC hold the caller up meanwhile.
// Both end with UNAVAILABLE when the store drains, and delete themselves when gRPC is done with
// them.
grpc::ServerWriteReactor<v1::SnapshotChunk>* ServeExport(grpc::CallbackServerContext* context,
                                                         const SnapshotContext& server,
                                                         const v1::ExportRequest& request);

grpc::ServerReadReactor<v1::SnapshotChunk>* ServeImport(grpc::CallbackServerContext* context,
                                                        const SnapshotContext& server,
                                                        v1::SessionDescription* response);

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_SNAPSHOT_STREAMS_H_
