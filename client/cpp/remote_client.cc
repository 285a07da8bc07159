#include "client/cpp/remote_client.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attic/v1/admin.grpc.pb.h"
#include "attic/v1/attention.grpc.pb.h"
#include "attic/v1/session.grpc.pb.h"
#include "base/status_macros.h"
#include "client/cpp/append_stream.h"
#include "client/cpp/attend_stream.h"
#include "client/cpp/client.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"
#include "wire/convert.h"

namespace attic {
namespace {

constexpr uint32_t kListPageSize = 1000;

// Of the time left the store gets nine tenths; the rest is for the way there and back.
uint64_t BudgetMicroseconds(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return 0;
  const absl::Duration left = deadline - absl::Now();
  return std::max<int64_t>(1, absl::ToInt64Microseconds(left * 0.9));
}

class RemoteClient final : public Client {
 public:
  RemoteClient(const ClientOptions& options, const std::shared_ptr<grpc::Channel>& channel)
      : options_(options),
        sessions_(v1::SessionService::NewStub(channel)),
        attention_(v1::AttentionService::NewStub(channel)),
        admin_(v1::AdminService::NewStub(channel)),
        attend_stream_(*attention_, options.limits) {}

  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) override {
    return Description(wire::ToWire(request), &v1::SessionService::Stub::Open);
  }

  absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) override {
    v1::DescribeRequest request;
    request.set_session_id(session_id);
    return Description(request, &v1::SessionService::Stub::Describe);
  }

  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) override {
    v1::PlanRequest request;
    request.set_session_id(session_id);
    ATTIC_ASSIGN_OR_RETURN(const v1::PlanResponse response,
                           CallUnary<v1::PlanResponse>(request, CallDeadline(),
                                                       [&](auto* context, auto& r, auto* out) {
                                                         return sessions_->Plan(context, r, out);
                                                       }));
    std::vector<HeadPlan> plans;
    for (const v1::HeadPlan& plan : response.heads()) plans.push_back(wire::FromWire(plan));
    return plans;
  }

  absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                 const ForkOptions& options) override {
    return Description(wire::ToWire(session_id, options), &v1::SessionService::Stub::Fork);
  }

  absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                     int64_t position) override {
    v1::TruncateRequest request;
    request.set_session_id(session_id);
    request.set_position(position);
    return Description(request, &v1::SessionService::Stub::Truncate);
  }

  absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                  absl::Time deadline) override {
    v1::FlushRequest request;
    request.set_session_id(session_id);
    return Description(request, &v1::SessionService::Stub::Flush, deadline);
  }

  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                  uint32_t first_block,
                                                  std::span<const PrefixHash> hashes) override {
    v1::ExtendPrefixRequest request;
    request.set_session_id(session_id);
    request.set_first_block(first_block);
    request.set_prefix_hashes(wire::ToWire(hashes));
    return Description(request, &v1::SessionService::Stub::ExtendPrefix);
  }

  absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) override {
    v1::RenewLeaseRequest request;
    request.set_session_id(session_id);
    return Description(request, &v1::SessionService::Stub::RenewLease);
  }

  absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                bool pinned) override {
    v1::PinRequest request;
    request.set_session_id(session_id);
    request.set_pinned(pinned);
    return Description(request, &v1::SessionService::Stub::Pin);
  }

  absl::Status CloseSession(const std::string& session_id) override {
    v1::CloseRequest request;
    request.set_session_id(session_id);
    return CallUnary<v1::CloseResponse>(
               request, CallDeadline(),
               [&](auto... arguments) { return sessions_->Close(arguments...); })
        .status();
  }

  absl::Status ExportSession(const std::string& session_id, absl::Time deadline,
                             const SnapshotWrite& write) override;
  absl::StatusOr<SessionDescription> ImportSession(const ImportOptions& options,
                                                   absl::Time deadline,
                                                   const SnapshotRead& read) override;
  absl::StatusOr<std::vector<SessionDescription>> ListSessions() override;
  absl::StatusOr<std::unique_ptr<AppendStream>> OpenAppendStream() override {
    return std::make_unique<RemoteAppendStream>(attention_, options_);
  }
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override;
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override;
  absl::StatusOr<StoreStatus> Status() override { return StatusBy(CallDeadline()); }
  absl::StatusOr<StoreStatus> StatusBy(absl::Time deadline);

 private:
  absl::Time CallDeadline() const { return absl::Now() + options_.call_timeout; }

  template <typename Request>
  using SessionMethod = grpc::Status (v1::SessionService::Stub::*)(grpc::ClientContext*,
                                                                   const Request&,
                                                                   v1::SessionDescription*);

  template <typename Request>
  absl::StatusOr<SessionDescription> Description(const Request& request,
                                                 SessionMethod<Request> method) {
    return Description(request, method, CallDeadline());
  }

  template <typename Request>
  absl::StatusOr<SessionDescription> Description(const Request& request,
                                                 SessionMethod<Request> method,
                                                 absl::Time deadline) {
    ATTIC_ASSIGN_OR_RETURN(const v1::SessionDescription response,
                           CallUnary<v1::SessionDescription>(
                               request, deadline, [&](auto* context, auto& r, auto* out) {
                                 return ((*sessions_).*method)(context, r, out);
                               }));
    return wire::FromWire(response);
  }

  const ClientOptions options_;
  const std::unique_ptr<v1::SessionService::Stub> sessions_;
  const std::shared_ptr<v1::AttentionService::Stub> attention_;
  const std::unique_ptr<v1::AdminService::Stub> admin_;
  AttendStream attend_stream_;
};

absl::StatusOr<std::vector<SessionDescription>> RemoteClient::ListSessions() {
  std::vector<SessionDescription> sessions;
  v1::ListRequest request;
  request.set_page_size(kListPageSize);
  const absl::Time deadline = CallDeadline();
  for (bool more = true; more;) {
    ATTIC_ASSIGN_OR_RETURN(
        const v1::ListResponse page,
        CallUnary<v1::ListResponse>(request, deadline, [&](auto* context, auto& r, auto* out) {
          return sessions_->List(context, r, out);
        }));
    for (const v1::SessionDescription& session : page.sessions()) {
      ATTIC_ASSIGN_OR_RETURN(SessionDescription description, wire::FromWire(session));
      sessions.push_back(std::move(description));
    }
    more = page.more() && page.sessions_size() > 0;
    if (more) request.set_after_session_id(sessions.back().session_id);
  }
  return sessions;
}

absl::Status RemoteClient::ExportSession(const std::string& session_id, absl::Time deadline,
                                         const SnapshotWrite& write) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::ExportRequest request;
  request.set_session_id(session_id);
  const auto reader = sessions_->Export(&context, request);
  v1::SnapshotChunk chunk;
  uint64_t total_bytes = 0;
  absl::Status written;
  while (written.ok() && reader->Read(&chunk)) {
    if (chunk.total_bytes() > 0) total_bytes = chunk.total_bytes();
    written = write(chunk.data(), total_bytes);
  }
  if (!written.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return written.ok() ? wire::FromGrpc(status) : written;
}

absl::StatusOr<SessionDescription> RemoteClient::ImportSession(const ImportOptions& options,
                                                               absl::Time deadline,
                                                               const SnapshotRead& read) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::SessionDescription response;
  const auto writer = sessions_->Import(&context, &response);
  v1::SnapshotChunk chunk;
  wire::ToWire(options, chunk);
  absl::Status failed;
  for (;;) {
    absl::StatusOr<std::string> bytes = read();
    if (!bytes.ok()) {
      failed = bytes.status();
      break;
    }
    if (bytes->empty()) break;
    chunk.set_data(*std::move(bytes));
    // What is wrong, Finish says.
    if (!writer->Write(chunk)) break;
    chunk.Clear();
  }
  if (failed.ok()) {
    writer->WritesDone();
  } else {
    context.TryCancel();
  }
  const grpc::Status status = writer->Finish();
  ATTIC_RETURN_IF_ERROR(failed);
  if (!status.ok()) return wire::FromGrpc(status);
  return wire::FromWire(response);
}

absl::StatusOr<std::vector<AttendAnswer>> RemoteClient::Attend(std::span<const AttendItem> items,
                                                               absl::Time deadline) {
  v1::AttendRequest request;
  request.set_layer(items.empty() ? 0 : items.front().layer);
  request.set_budget_us(BudgetMicroseconds(deadline));
  for (const AttendItem& item : items) {
    if (item.layer != request.layer()) {
      return absl::InvalidArgumentError("layer: the items of one call must have the same layer");
    }
    *request.add_items() = wire::ToWire(item);
  }
  ATTIC_ASSIGN_OR_RETURN(const v1::AttendResponse response,
                         attend_stream_.Call(std::move(request), deadline));
  ATTIC_RETURN_IF_ERROR(wire::FromWire(response.error()));
  if (static_cast<size_t>(response.items_size()) != items.size()) {
    return absl::InternalError(
        absl::StrCat("the store answered ", response.items_size(), " of ", items.size(), " items"));
  }
  std::vector<AttendAnswer> answers;
  answers.reserve(items.size());
  for (const v1::AttendItemResponse& item : response.items()) {
    ATTIC_ASSIGN_OR_RETURN(AttendAnswer answer, wire::FromWire(item));
    answer.epoch = response.epoch();
    answer.boot_id = response.boot_id();
    answers.push_back(std::move(answer));
  }
  return answers;
}

absl::StatusOr<SearchAnswer> RemoteClient::Search(const SearchRequest& request,
                                                  absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const v1::SearchResponse response,
                         CallUnary<v1::SearchResponse>(wire::ToWire(request), deadline,
                                                       [&](auto* context, auto& r, auto* out) {
                                                         return attention_->Search(context, r, out);
                                                       }));
  return wire::FromWire(response);
}

absl::StatusOr<StoreStatus> RemoteClient::StatusBy(absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const v1::StoreStatus response,
                         CallUnary<v1::StoreStatus>(v1::GetStatusRequest(), deadline,
                                                    [&](auto* context, auto& r, auto* out) {
                                                      return admin_->GetStatus(context, r, out);
                                                    }));
  return wire::FromWire(response);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> ConnectStore(const ClientOptions& options) {
  const absl::Time deadline = absl::Now() + options.connect_timeout;
  const std::shared_ptr<grpc::Channel> channel =
      wire::MakeChannel(options.address, options.limits.message_bytes_max);
  ATTIC_RETURN_IF_ERROR(WaitForConnected(*channel, options.address, options.connect_timeout));
  auto client = std::make_unique<RemoteClient>(options, channel);
  // A listener that is no store is found here, not at the first token.
  if (const absl::Status status = client->StatusBy(deadline).status(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("no store answers at ", options.address, ": ",
                                                    std::string(status.message())));
  }
  return client;
}

}  // namespace attic
