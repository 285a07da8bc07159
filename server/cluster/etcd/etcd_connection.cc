#include "server/cluster/etcd/etcd_connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kTokenBytesMax = 16u << 10;

bool IsEndpointFailure(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

EtcdClock::time_point Sooner(EtcdClock::time_point deadline, absl::Duration timeout) {
  return std::min(deadline, EtcdDeadline(timeout));
}

bool IsHeaderText(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

EtcdConnection::EtcdConnection(EtcdOptions options) : options_(std::move(options)) {}

absl::Status EtcdConnection::Call(Repeat repeat, EtcdClock::time_point deadline,
                                  const Attempt& attempt) {
  absl::Status status;
  for (size_t tried = 0; tried < options_.endpoints.size(); ++tried) {
    if (tried > 0 && EtcdClock::now() >= deadline) break;
    absl::StatusOr<std::shared_ptr<EtcdChannel>> channel = Connect(deadline);
    if (!channel.ok()) {  // nothing was sent, so that every call may go on
      status = channel.status();
      if (!IsEndpointFailure(status)) return status;
      continue;
    }
    status = CallOn(**channel, deadline, attempt);
    if (!IsEndpointFailure(status)) return status;
    ForgetChannel(*channel);
    if (repeat == Repeat::kNever) break;
  }
  return status;
}

absl::Status EtcdConnection::CallOn(EtcdChannel& channel, EtcdClock::time_point deadline,
                                    const Attempt& attempt) {
  const EtcdClock::time_point end = Sooner(deadline, options_.call_timeout);
  for (bool renewed = false;; renewed = true) {
    ATTIC_ASSIGN_OR_RETURN(const std::string token, Token(channel, end));
    grpc::ClientContext context;
    SetDeadline(context, end);
    Prepare(context, token);
    const absl::Status status = channel.FromGrpc(attempt(channel, context));
    if (!IsTokenRefused(status)) return status;
    ForgetToken(token);
    if (renewed) return status;
  }
}

absl::StatusOr<std::shared_ptr<EtcdChannel>> EtcdConnection::Connect(
    EtcdClock::time_point deadline) {
  ATTIC_ASSIGN_OR_RETURN(std::shared_ptr<EtcdChannel> channel, CurrentChannel());
  const absl::Status ready = channel->WaitForReady(Sooner(deadline, options_.connect_timeout));
  if (ready.ok()) return channel;
  ForgetChannel(channel);
  return ready;
}

absl::StatusOr<std::shared_ptr<EtcdChannel>> EtcdConnection::CurrentChannel() {
  size_t wanted = 0;
  {
    MutexLock lock(mutex_);
    if (channel_ != nullptr) return channel_;
    wanted = current_;
  }
  ATTIC_ASSIGN_OR_RETURN(std::shared_ptr<EtcdChannel> opened,
                         EtcdChannel::Open(options_, options_.endpoints[wanted]));
  MutexLock lock(mutex_);
  if (channel_ == nullptr && current_ == wanted) channel_ = opened;
  return channel_ != nullptr ? channel_ : opened;
}

absl::StatusOr<std::string> EtcdConnection::Token(EtcdChannel& channel,
                                                  EtcdClock::time_point deadline) {
  if (options_.user.empty()) return std::string();
  {
    MutexLock lock(mutex_);
    if (token_known_) return token_;
  }
  ATTIC_ASSIGN_OR_RETURN(std::string password, ReadCredentialFile(options_.password_file));
  password.erase(password.find_last_not_of("\r\n") + 1);
  etcdserverpb::AuthenticateRequest request;
  request.set_name(options_.user);
  request.set_password(std::move(password));
  grpc::ClientContext context;
  SetDeadline(context, deadline);
  Prepare(context, "");
  etcdserverpb::AuthenticateResponse response;
  const absl::Status status =
      channel.FromGrpc(channel.auth->Authenticate(&context, request, &response));
  if (absl::IsInvalidArgument(status)) return absl::UnauthenticatedError(status.message());
  // FAILED_PRECONDITION: etcd asks for no users. Should it begin to, it refuses the empty token.
  if (!status.ok() && !absl::IsFailedPrecondition(status)) return status;
  std::string token = std::move(*response.mutable_token());
  if (token.size() > kTokenBytesMax || !IsHeaderText(token)) {
    return absl::InternalError(absl::StrCat("etcd ", channel.endpoint, ": token makes no sense"));
  }
  MutexLock lock(mutex_);
  token_ = token;
  token_known_ = true;
  return token;
}

void EtcdConnection::Prepare(grpc::ClientContext& context, const std::string& token) {
  // A member that has lost its leader then ends streams instead of keeping silent.
  context.AddMetadata("hasleader", "true");
  if (!token.empty()) context.AddMetadata("token", token);
}

void EtcdConnection::Report(const std::shared_ptr<EtcdChannel>& channel, const std::string& token,
                            const absl::Status& status) {
  if (IsEndpointFailure(status)) ForgetChannel(channel);
  if (IsTokenRefused(status)) ForgetToken(token);
}

bool EtcdConnection::IsTokenRefused(const absl::Status& status) const {
  if (options_.user.empty()) return false;
  // A watch that etcd refuses says so in words only, and so do refusals with other codes.
  return absl::IsUnauthenticated(status) ||
         absl::StrContains(status.message(), "revision of auth store is old") ||
         absl::StrContains(status.message(), "user name is empty");
}

void EtcdConnection::ForgetChannel(const std::shared_ptr<EtcdChannel>& channel) {
  std::shared_ptr<EtcdChannel> dropped;  // outlives the lock
  MutexLock lock(mutex_);
  // Another thread may have seen the same failure before and gone on already.
  if (channel_ != channel) return;
  dropped = std::move(channel_);
  channel_ = nullptr;
  current_ = (current_ + 1) % options_.endpoints.size();
}

void EtcdConnection::ForgetToken(const std::string& token) {
  MutexLock lock(mutex_);
  if (token_known_ && token_ == token) token_known_ = false;
}

}  // namespace attic
