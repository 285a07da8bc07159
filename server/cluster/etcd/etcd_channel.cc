#include "server/cluster/etcd/etcd_channel.h"

#include <grpc/support/time.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kCredentialBytesMax = 1u << 20;
constexpr absl::Duration kDeadlineMax = absl::Hours(24);
// etcd ends connections that ping more often than every five seconds.
constexpr int kKeepaliveMs = 10'000;
constexpr int kKeepaliveTimeoutMs = 5'000;

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const EtcdOptions& options) {
  if (options.ca_file.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ATTIC_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadCredentialFile(options.ca_file));
  if (!options.cert_file.empty()) {
    ATTIC_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadCredentialFile(options.cert_file));
    ATTIC_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadCredentialFile(options.key_file));
  }
  return grpc::SslCredentials(ssl);
}

grpc::ChannelArguments Arguments(const EtcdOptions& options) {
  const int connect_ms =
      static_cast<int>(std::max<int64_t>(1, absl::ToInt64Milliseconds(options.connect_timeout)));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kEtcdMessageBytesMax);
  arguments.SetMaxSendMessageSize(kEtcdMessageBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_ms);  // time for one attempt
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A write that gRPC sent again by itself could undo another that came between.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A new channel is a new connection: after a hang the old one may look alive for long.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

// gRPC tells the reason only to a call, which fails at once; etcd would refuse this one.
absl::Status WhyNotReady(const EtcdChannel& channel, EtcdClock::time_point deadline) {
  grpc::ClientContext context;
  SetDeadline(context, deadline);
  etcdserverpb::RangeResponse response;
  const absl::Status status =
      channel.FromGrpc(channel.kv->Range(&context, etcdserverpb::RangeRequest(), &response));
  return absl::UnavailableError(status.message());
}

gpr_timespec ToGpr(EtcdClock::time_point deadline) {
  const auto left =
      std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(deadline - EtcdClock::now()));
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(left.count(), GPR_TIMESPAN));
}

}  // namespace

EtcdClock::time_point EtcdDeadline(absl::Duration timeout) {
  return EtcdClock::now() +
         absl::ToChronoNanoseconds(std::clamp(timeout, absl::ZeroDuration(), kDeadlineMax));
}

absl::StatusOr<std::shared_ptr<EtcdChannel>> EtcdChannel::Open(const EtcdOptions& options,
                                                               const std::string& endpoint) {
  ATTIC_ASSIGN_OR_RETURN(const auto credentials, Credentials(options));
  // The scheme is named so that a host's name is never taken for one.
  return std::make_shared<EtcdChannel>(
      endpoint, grpc::CreateCustomChannel(absl::StrCat("dns:///", endpoint), credentials,
                                          Arguments(options)));
}

EtcdChannel::EtcdChannel(std::string endpoint_name, std::shared_ptr<grpc::Channel> grpc_channel)
    : endpoint(std::move(endpoint_name)),
      channel(std::move(grpc_channel)),
      kv(etcdserverpb::KV::NewStub(channel)),
      lease(etcdserverpb::Lease::NewStub(channel)),
      watch(etcdserverpb::Watch::NewStub(channel)),
      auth(etcdserverpb::Auth::NewStub(channel)) {}

absl::Status EtcdChannel::WaitForReady(EtcdClock::time_point deadline) const {
  grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY) {
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
      return WhyNotReady(*this, deadline);
    }
    if (!channel->WaitForStateChange(state, ToGpr(deadline))) {
      return absl::UnavailableError(absl::StrCat("etcd ", endpoint, ": no connection in time"));
    }
    state = channel->GetState(true);
  }
  return absl::OkStatus();
}

absl::Status EtcdChannel::FromGrpc(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  const absl::StatusCode code = status.error_code() == grpc::StatusCode::CANCELLED
                                    ? absl::StatusCode::kUnavailable
                                    : static_cast<absl::StatusCode>(status.error_code());
  return absl::Status(code, absl::StrCat("etcd ", endpoint, ": ", status.error_message()));
}

void SetDeadline(grpc::ClientContext& context, EtcdClock::time_point deadline) {
  context.set_deadline(ToGpr(deadline));
}

absl::StatusOr<std::string> ReadCredentialFile(const std::string& path) {
  const auto failed = [&path](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", why));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                             &std::fclose);
  if (file == nullptr) return failed(std::strerror(errno));
  std::string text(kCredentialBytesMax + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return failed("cannot be read");
  if (text.empty()) return failed("is empty");
  if (text.size() > kCredentialBytesMax) return failed("is over 1 MiB");
  return text;
}

}  // namespace attic
