#include "server/service/session_service.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/service/session_gate.h"
#include "server/service/snapshot_streams.h"
#include "server/service/unary_call.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr uint32_t kPageSizeDefault = 100;
constexpr uint32_t kPageSizeMax = 1000;

absl::Status Describe(const absl::StatusOr<SessionDescription>& description,
                      v1::SessionDescription* response) {
  if (!description.ok()) return description.status();
  *response = wire::ToWire(*description);
  return absl::OkStatus();
}

absl::Status ListPage(SessionStore& store, const v1::ListRequest& request,
                      v1::ListResponse* response) {
  const uint32_t page_size = request.page_size() == 0 ? kPageSizeDefault : request.page_size();
  if (page_size > kPageSizeMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("page_size: ", page_size, " is over the limit of ", kPageSizeMax));
  }
  const auto sessions = store.ListSessions(request.after_session_id(), page_size + 1);
  for (size_t i = 0; i < sessions.size() && i < page_size; ++i) {
    *response->add_sessions() = wire::ToWire(sessions[i]);
  }
  response->set_more(sessions.size() > page_size);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* SessionServiceImpl::Open(grpc::CallbackServerContext* context,
                                                   const v1::OpenRequest* request,
                                                   v1::SessionDescription* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kOpen},
                    [this, request, response](absl::Time) -> absl::Status {
                      ATTIC_ASSIGN_OR_RETURN(const OpenSessionRequest open,
                                             wire::FromWire(*request));
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return attic::Describe(store_.OpenSession(open), response);
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Describe(grpc::CallbackServerContext* context,
                                                       const v1::DescribeRequest* request,
                                                       v1::SessionDescription* response) {
  return ServeUnary(
      context, executor_, {metrics_, Method::kDescribe}, [this, request, response](absl::Time) {
        return attic::Describe(store_.DescribeSession(request->session_id()), response);
      });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Plan(grpc::CallbackServerContext* context,
                                                   const v1::PlanRequest* request,
                                                   v1::PlanResponse* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kPlan},
                    [this, request, response](absl::Time) -> absl::Status {
                      ATTIC_ASSIGN_OR_RETURN(const auto plans,
                                             store_.PlanSession(request->session_id()));
                      for (const HeadPlan& plan : plans)
                        *response->add_heads() = wire::ToWire(plan);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::List(grpc::CallbackServerContext* context,
                                                   const v1::ListRequest* request,
                                                   v1::ListResponse* response) {
  return ServeUnary(
      context, executor_, {metrics_, Method::kList},
      [this, request, response](absl::Time) { return ListPage(store_, *request, response); });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Fork(grpc::CallbackServerContext* context,
                                                   const v1::ForkRequest* request,
                                                   v1::SessionDescription* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kFork},
                    [this, request, response](absl::Time) -> absl::Status {
                      ATTIC_ASSIGN_OR_RETURN(const ForkOptions options, wire::FromWire(*request));
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return attic::Describe(store_.ForkSession(request->session_id(), options),
                                             response);
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Truncate(grpc::CallbackServerContext* context,
                                                       const v1::TruncateRequest* request,
                                                       v1::SessionDescription* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kTruncate},
                    [this, request, response](absl::Time) -> absl::Status {
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return attic::Describe(
                          store_.TruncateSession(request->session_id(), request->position()),
                          response);
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Flush(grpc::CallbackServerContext* context,
                                                    const v1::FlushRequest* request,
                                                    v1::SessionDescription* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kFlush},
                    [this, request, response](absl::Time deadline) -> absl::Status {
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return attic::Describe(store_.FlushSession(request->session_id(), deadline),
                                             response);
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::ExtendPrefix(grpc::CallbackServerContext* context,
                                                           const v1::ExtendPrefixRequest* request,
                                                           v1::SessionDescription* response) {
  return ServeUnary(
      context, executor_, {metrics_, Method::kExtendPrefix},
      [this, request, response](absl::Time) -> absl::Status {
        ATTIC_ASSIGN_OR_RETURN(const auto hashes,
                               wire::PrefixHashesFromWire(request->prefix_hashes()));
        ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
        return attic::Describe(
            store_.ExtendPrefix(request->session_id(), request->first_block(), hashes), response);
      });
}

grpc::ServerUnaryReactor* SessionServiceImpl::RenewLease(grpc::CallbackServerContext* context,
                                                         const v1::RenewLeaseRequest* request,
                                                         v1::SessionDescription* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kRenewLease},
                    [this, request, response](absl::Time) -> absl::Status {
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return attic::Describe(store_.RenewLease(request->session_id()), response);
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Pin(grpc::CallbackServerContext* context,
                                                  const v1::PinRequest* request,
                                                  v1::SessionDescription* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kPin},
                    [this, request, response](absl::Time) -> absl::Status {
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return attic::Describe(
                          store_.PinSession(request->session_id(), request->pinned()), response);
                    });
}

grpc::ServerUnaryReactor* SessionServiceImpl::Close(grpc::CallbackServerContext* context,
                                                    const v1::CloseRequest* request,
                                                    v1::CloseResponse*) {
  return ServeUnary(context, executor_, {metrics_, Method::kClose},
                    [this, request](absl::Time) -> absl::Status {
                      ATTIC_RETURN_IF_ERROR(CheckChangesPassed(gate_));
                      return store_.CloseSession(request->session_id());
                    });
}

grpc::ServerWriteReactor<v1::SnapshotChunk>* SessionServiceImpl::Export(
    grpc::CallbackServerContext* context, const v1::ExportRequest* request) {
  return ServeExport(context, {store_, gate_, transfer_executor_, streams_, metrics_}, *request);
}

grpc::ServerReadReactor<v1::SnapshotChunk>* SessionServiceImpl::Import(
    grpc::CallbackServerContext* context, v1::SessionDescription* response) {
  return ServeImport(context, {store_, gate_, transfer_executor_, streams_, metrics_}, response);
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetStatus(grpc::CallbackServerContext* context,
                                                      const v1::GetStatusRequest*,
                                                      v1::StoreStatus* response) {
  return ServeUnary(context, executor_, {metrics_, Method::kGetStatus},
                    [this, response](absl::Time) {
                      StoreStatus status = store_.Status();
                      status.epoch = gate_.epoch();
                      *response = wire::ToWire(status);
                      return absl::OkStatus();
                    });
}

}  // namespace attic
