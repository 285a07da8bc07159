// gRPC handlers of attic.v1.AttentionService.
#ifndef ATTIC_SERVER_SERVICE_ATTENTION_SERVICE_H_
#define ATTIC_SERVER_SERVICE_ATTENTION_SERVICE_H_

#include "attic/v1/attention.grpc.pb.h"
#include "server/service/attend_request.h"
#include "server/service/call_metrics.h"
#include "server/service/executor.h"
#include "server/service/stream_registry.h"
#include "server/session/session_store.h"

namespace attic {

// What the handlers work with; everything outlives the server.
struct AttentionContext {
  SessionStore& store;
  Executor& query_executor;   // attention and search
  Executor& append_executor;  // kept apart, so that appending never delays answers
  StreamRegistry& streams;
  CallMetrics& metrics;
  StoreIdentity identity;
  Limits limits;
};

class AttentionServiceImpl final : public v1::AttentionService::CallbackService {
 public:
  explicit AttentionServiceImpl(const AttentionContext& context) : context_(context) {}

  grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* Append(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Attend(grpc::CallbackServerContext* context,
                                   const v1::AttendRequest* request,
                                   v1::AttendResponse* response) override;
  grpc::ServerBidiReactor<v1::AttendRequest, v1::AttendResponse>* AttendStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Search(grpc::CallbackServerContext* context,
                                   const v1::SearchRequest* request,
                                   v1::SearchResponse* response) override;

 private:
  const AttentionContext context_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_ATTENTION_SERVICE_H_
