#include "wire/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace attic::wire {
namespace {

constexpr size_t kFramingBytes = 64 << 10;  // what a message may add to the arrays in it

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, size_t message_bytes_max) {
  grpc::ChannelArguments arguments;
  const int bytes_max = static_cast<int>(
      std::min<size_t>(message_bytes_max + kFramingBytes, std::numeric_limits<int>::max()));
  arguments.SetMaxReceiveMessageSize(bytes_max);
  arguments.SetMaxSendMessageSize(bytes_max);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kChannelPingMs);
  // For TCP_USER_TIMEOUT, too.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kChannelPingTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kChannelBackoffMinMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kChannelConnectMs);  // of one attempt
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kChannelBackoffMaxMs);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void ServeChannels(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kChannelPingMs / 2);
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::CANCELLED) {
    return absl::UnavailableError(absl::StrCat("ended by the peer: ", status.error_message()));
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace attic::wire
