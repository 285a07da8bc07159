#include "server/cluster/etcd/etcd_client.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/cluster/etcd/etcd_connection.h"
#include "server/cluster/etcd/etcd_messages.h"
#include "server/cluster/etcd/etcd_watch.h"

namespace attic {
namespace {

using Repeat = EtcdConnection::Repeat;

constexpr int kListTries = 3;

absl::Status CheckOptions(const EtcdOptions& options) {
  if (options.endpoints.empty()) return absl::InvalidArgumentError("endpoints: none");
  if (options.endpoints.size() > kEtcdEndpointsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("endpoints: over kEtcdEndpointsMax, ", kEtcdEndpointsMax));
  }
  for (const std::string& endpoint : options.endpoints) {
    if (absl::StrContains(endpoint, "/") || !absl::StrContains(endpoint, ":")) {
      return absl::InvalidArgumentError(absl::StrCat("endpoints: not HOST:PORT: ", endpoint));
    }
  }
  if (options.connect_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("connect_timeout: not positive");
  }
  if (options.call_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("call_timeout: not positive");
  }
  if (options.cert_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("cert_file and key_file: one without the other");
  }
  if (!options.cert_file.empty() && options.ca_file.empty()) {
    return absl::InvalidArgumentError("cert_file without ca_file");
  }
  if (options.user.empty() != options.password_file.empty()) {
    return absl::InvalidArgumentError("user and password_file: one without the other");
  }
  return absl::OkStatus();
}

absl::Status CheckFiles(const EtcdOptions& options) {
  for (const std::string* file :
       {&options.ca_file, &options.cert_file, &options.key_file, &options.password_file}) {
    if (!file->empty()) ATTIC_RETURN_IF_ERROR(ReadCredentialFile(*file).status());
  }
  return absl::OkStatus();
}

// One unary call; `method` is of the stub that `stub` points to.
template <typename Response, typename Request, typename Stub>
absl::StatusOr<Response> CallUnary(EtcdConnection& connection, Repeat repeat,
                                   const std::unique_ptr<Stub> EtcdChannel::*stub,
                                   grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                const Request&, Response*),
                                   const Request& request) {
  Response response;
  ATTIC_RETURN_IF_ERROR(connection.Call(repeat, EtcdDeadline(absl::InfiniteDuration()),
                                        [&](EtcdChannel& channel, grpc::ClientContext& context) {
                                          response.Clear();
                                          return ((channel.*stub).get()->*method)(&context, request,
                                                                                  &response);
                                        }));
  return response;
}

absl::StatusOr<etcdserverpb::RangeResponse> CallRange(EtcdConnection& connection,
                                                      const etcdserverpb::RangeRequest& request) {
  return CallUnary<etcdserverpb::RangeResponse>(connection, Repeat::kNextEndpoints,
                                                &EtcdChannel::kv, &etcdserverpb::KV::Stub::Range,
                                                request);
}

// Adds a page that begins at request.key() to `entries`.
absl::Status AddPage(const std::string& prefix, const etcdserverpb::RangeRequest& request,
                     etcdserverpb::RangeResponse& page, size_t& bytes, EtcdEntries& entries) {
  if (page.kvs_size() > request.limit() || (page.more() && page.kvs_size() == 0)) {
    return absl::InternalError("etcd sent a page of another size than asked for");
  }
  for (mvccpb::KeyValue& kv : *page.mutable_kvs()) {
    ATTIC_ASSIGN_OR_RETURN(EtcdKeyValue entry, FromWire(prefix, kv));
    if (!entries.entries.empty() && entry.key <= entries.entries.back().key) {
      return absl::InternalError("etcd sent keys out of order");
    }
    bytes += entry.key.size() + entry.value.size();
    entries.entries.push_back(std::move(entry));
  }
  if (entries.entries.size() > kEtcdListKeysMax || bytes > kEtcdListBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(prefix, ": over kEtcdListKeysMax (",
                                                     kEtcdListKeysMax, ") or kEtcdListBytesMax (",
                                                     kEtcdListBytesMax, ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<EtcdEntries> ListOnce(EtcdConnection& connection, const std::string& prefix) {
  etcdserverpb::RangeRequest request;
  request.set_key(prefix);
  request.set_range_end(EtcdPrefixEnd(prefix));
  request.set_limit(kEtcdListPageKeys);
  EtcdEntries entries;
  size_t bytes = 0;
  while (true) {
    ATTIC_ASSIGN_OR_RETURN(etcdserverpb::RangeResponse page, CallRange(connection, request));
    if (request.revision() == 0) {
      ATTIC_ASSIGN_OR_RETURN(entries.revision, RevisionOf(page.header()));
      request.set_revision(entries.revision);
    }
    ATTIC_RETURN_IF_ERROR(AddPage(prefix, request, page, bytes, entries));
    if (!page.more()) return entries;
    request.set_key(entries.entries.back().key + '\0');
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EtcdClient>> EtcdClient::Create(const EtcdOptions& options) {
  ATTIC_RETURN_IF_ERROR(CheckOptions(options));
  ATTIC_RETURN_IF_ERROR(CheckFiles(options));
  return std::unique_ptr<EtcdClient>(new EtcdClient(std::make_shared<EtcdConnection>(options)));
}

EtcdClient::EtcdClient(std::shared_ptr<EtcdConnection> connection)
    : connection_(std::move(connection)) {}

EtcdClient::~EtcdClient() = default;

absl::StatusOr<EtcdEntry> EtcdClient::Get(const std::string& key) {
  ATTIC_RETURN_IF_ERROR(CheckEtcdKey(key));
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  ATTIC_ASSIGN_OR_RETURN(etcdserverpb::RangeResponse response, CallRange(*connection_, request));
  EtcdEntry result;
  ATTIC_ASSIGN_OR_RETURN(result.revision, RevisionOf(response.header()));
  if (response.kvs_size() == 0) return result;
  ATTIC_ASSIGN_OR_RETURN(result.entry, FromWire(key, *response.mutable_kvs(0)));
  if (response.kvs_size() > 1 || result.entry->key != key) {
    return absl::InternalError("etcd sent a key that was not asked for");
  }
  return result;
}

absl::StatusOr<EtcdEntries> EtcdClient::List(const std::string& prefix) {
  ATTIC_RETURN_IF_ERROR(CheckEtcdKey(prefix));
  for (int tries = 0; tries < kListTries; ++tries) {
    absl::StatusOr<EtcdEntries> entries = ListOnce(*connection_, prefix);
    // Later pages ask for the revision of the first, which etcd may have dropped meanwhile, or lost
    // with all its data.
    if (!absl::IsOutOfRange(entries.status())) return entries;
  }
  return absl::AbortedError(absl::StrCat(prefix, ": etcd dropped revisions faster than listed"));
}

absl::StatusOr<int64_t> EtcdClient::Put(const std::string& key, const std::string& value,
                                        int64_t lease) {
  ATTIC_ASSIGN_OR_RETURN(const etcdserverpb::PutRequest request,
                         ToWire(EtcdPut{.key = key, .value = value, .lease = lease}));
  ATTIC_ASSIGN_OR_RETURN(
      const etcdserverpb::PutResponse response,
      CallUnary<etcdserverpb::PutResponse>(*connection_, Repeat::kNever, &EtcdChannel::kv,
                                           &etcdserverpb::KV::Stub::Put, request));
  return RevisionOf(response.header());
}

absl::StatusOr<bool> EtcdClient::Delete(const std::string& key) {
  ATTIC_RETURN_IF_ERROR(CheckEtcdKey(key));
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(key);
  ATTIC_ASSIGN_OR_RETURN(
      const etcdserverpb::DeleteRangeResponse response,
      CallUnary<etcdserverpb::DeleteRangeResponse>(*connection_, Repeat::kNever, &EtcdChannel::kv,
                                                   &etcdserverpb::KV::Stub::DeleteRange, request));
  return response.deleted() > 0;
}

absl::StatusOr<EtcdCommit> EtcdClient::Commit(const EtcdTransaction& transaction) {
  ATTIC_ASSIGN_OR_RETURN(const etcdserverpb::TxnRequest request, ToWire(transaction));
  ATTIC_ASSIGN_OR_RETURN(
      const etcdserverpb::TxnResponse response,
      CallUnary<etcdserverpb::TxnResponse>(*connection_, Repeat::kNever, &EtcdChannel::kv,
                                           &etcdserverpb::KV::Stub::Txn, request));
  EtcdCommit commit;
  commit.succeeded = response.succeeded();
  ATTIC_ASSIGN_OR_RETURN(commit.revision, RevisionOf(response.header()));
  return commit;
}

absl::StatusOr<EtcdLease> EtcdClient::GrantLease(absl::Duration ttl) {
  if (ttl <= absl::ZeroDuration() || ttl > kEtcdLeaseTtlMax) {
    return absl::InvalidArgumentError("ttl: not positive, or over kEtcdLeaseTtlMax");
  }
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(absl::ToInt64Seconds(absl::Ceil(ttl, absl::Seconds(1))));
  ATTIC_ASSIGN_OR_RETURN(const etcdserverpb::LeaseGrantResponse response,
                         CallUnary<etcdserverpb::LeaseGrantResponse>(
                             *connection_, Repeat::kNextEndpoints, &EtcdChannel::lease,
                             &etcdserverpb::Lease::Stub::LeaseGrant, request));
  if (!response.error().empty()) return absl::InternalError(response.error());
  if (response.id() == 0 || response.ttl() <= 0) {
    return absl::InternalError("etcd granted a lease without number or time");
  }
  return EtcdLease{.id = response.id(), .ttl = absl::Seconds(response.ttl())};
}

absl::Status EtcdClient::RevokeLease(int64_t lease) {
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease);
  return CallUnary<etcdserverpb::LeaseRevokeResponse>(
             *connection_, Repeat::kNever, &EtcdChannel::lease,
             &etcdserverpb::Lease::Stub::LeaseRevoke, request)
      .status();
}

absl::StatusOr<absl::Duration> EtcdClient::KeepAlive(int64_t lease, absl::Duration timeout) {
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease);
  etcdserverpb::LeaseKeepAliveResponse response;
  ATTIC_RETURN_IF_ERROR(connection_->Call(
      Repeat::kNextEndpoints, EtcdDeadline(timeout),
      [&](EtcdChannel& channel, grpc::ClientContext& context) {
        response.Clear();
        const auto stream = channel.lease->LeaseKeepAlive(&context);
        stream->WriteLast(request, grpc::WriteOptions());
        const bool answered = stream->Read(&response);
        if (answered) context.TryCancel();  // how the stream ends does not matter any more
        const grpc::Status status = stream->Finish();
        if (answered) return grpc::Status::OK;
        return !status.ok() ? status
                            : grpc::Status(grpc::StatusCode::INTERNAL, "no answer to a keepalive");
      }));
  if (response.id() != lease || response.ttl() < 0) {
    return absl::InternalError("etcd answered for another lease than asked for");
  }
  return absl::Seconds(response.ttl());
}

std::unique_ptr<EtcdWatch> EtcdClient::Watch(const std::string& prefix, int64_t from_revision,
                                             EtcdWatchHandler handler) {
  ATTIC_CHECK(CheckEtcdKey(prefix).ok() && from_revision >= 1);
  return std::make_unique<EtcdWatchStream>(connection_, prefix, from_revision, std::move(handler));
}

}  // namespace attic
