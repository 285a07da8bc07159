#include "server/service/shard_calls.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/cluster/cluster_options.h"
#include "server/service/session_gate.h"
#include "wire/convert.h"

namespace attic {
namespace {

// The session that a call other than an open is about.
const std::string& SessionOf(const v1::ShardCall& call) {
  static const std::string* const none = new std::string();
  switch (call.call_case()) {
    case v1::ShardCall::kDescribe:
      return call.describe().session_id();
    case v1::ShardCall::kFork:
      return call.fork().session_id();
    case v1::ShardCall::kTruncate:
      return call.truncate().session_id();
    case v1::ShardCall::kFlush:
      return call.flush().session_id();
    case v1::ShardCall::kExtendPrefix:
      return call.extend_prefix().session_id();
    case v1::ShardCall::kRenewLease:
      return call.renew_lease().session_id();
    case v1::ShardCall::kPin:
      return call.pin().session_id();
    case v1::ShardCall::kClose:
      return call.close().session_id();
    case v1::ShardCall::kOpen:
    case v1::ShardCall::CALL_NOT_SET:
      break;
  }
  return *none;
}

}  // namespace

Method MethodOf(const v1::ShardCall& call) {
  switch (call.call_case()) {
    case v1::ShardCall::kOpen:
      return Method::kOpen;
    case v1::ShardCall::kDescribe:
      return Method::kDescribe;
    case v1::ShardCall::kFork:
      return Method::kFork;
    case v1::ShardCall::kTruncate:
      return Method::kTruncate;
    case v1::ShardCall::kFlush:
      return Method::kFlush;
    case v1::ShardCall::kExtendPrefix:
      return Method::kExtendPrefix;
    case v1::ShardCall::kRenewLease:
      return Method::kRenewLease;
    case v1::ShardCall::kPin:
      return Method::kPin;
    case v1::ShardCall::kClose:
      return Method::kClose;
    case v1::ShardCall::CALL_NOT_SET:
      break;
  }
  return Method::kCall;
}

void ShardCaller::Answer(const v1::ShardCall& call, absl::Time deadline,
                         v1::ShardResult& result) const {
  const absl::Status status = absl::Now() >= deadline
                                  ? absl::DeadlineExceededError("deadline passed")
                                  : Do(call, deadline, result);
  if (!status.ok()) *result.mutable_error() = wire::ToWire(status);
}

// The gate is asked for every call: much may happen while thousands are worked on.
absl::Status ShardCaller::Do(const v1::ShardCall& call, absl::Time deadline,
                             v1::ShardResult& result) const {
  ATTIC_ASSIGN_OR_RETURN(const SlotPass pass, gate_.Admit(sender_epoch_));
  absl::StatusOr<SessionDescription> session;
  switch (call.call_case()) {
    case v1::ShardCall::CALL_NOT_SET:
      return absl::InvalidArgumentError("call: none, or one of a later version");
    case v1::ShardCall::kOpen:
      session = Open(pass, call.open());
      break;
    case v1::ShardCall::kDescribe:
      ATTIC_RETURN_IF_ERROR(CheckSessionRead(store_, pass, SessionOf(call)));
      session = store_.DescribeSession(SessionOf(call));
      break;
    case v1::ShardCall::kClose: {
      // Also when it is not held here: it may be about to be copied here.
      const std::shared_ptr<void> changing = Changing(SessionOf(call));
      ATTIC_RETURN_IF_ERROR(CheckSessionWrite(store_, pass, SessionOf(call)));
      return store_.CloseSession(SessionOf(call));
    }
    case v1::ShardCall::kTruncate: {
      const std::shared_ptr<void> changing = Changing(SessionOf(call));
      ATTIC_RETURN_IF_ERROR(CheckSessionWrite(store_, pass, SessionOf(call)));
      session = store_.TruncateSession(SessionOf(call), call.truncate().position());
      break;
    }
    default:
      ATTIC_RETURN_IF_ERROR(CheckSessionWrite(store_, pass, SessionOf(call)));
      session = Change(call, deadline);
  }
  ATTIC_RETURN_IF_ERROR(session.status());
  *result.mutable_session() = wire::ToWire(*session);
  return absl::OkStatus();
}

std::shared_ptr<void> ShardCaller::Changing(const std::string& session_id) const {
  NodeRepair* const repair = gate_.repair();
  return repair == nullptr ? nullptr : repair->Changing({session_id});
}

absl::StatusOr<SessionDescription> ShardCaller::Open(const SlotPass& pass,
                                                     const v1::OpenRequest& request) const {
  ATTIC_ASSIGN_OR_RETURN(OpenSessionRequest open, wire::FromWire(request));
  if (open.prefix_hashes.empty()) open.prefix_hashes = shared_hashes_;
  if (open.placement.has_value()) {
    ATTIC_RETURN_IF_ERROR(CheckNewSession(pass, open.session_id, *open.placement));
  }
  return store_.OpenSession(open);
}

absl::StatusOr<SessionDescription> ShardCaller::Change(const v1::ShardCall& call,
                                                       absl::Time deadline) const {
  const std::string& id = SessionOf(call);
  switch (call.call_case()) {
    case v1::ShardCall::kFork: {
      ATTIC_ASSIGN_OR_RETURN(const ForkOptions options, wire::FromWire(call.fork()));
      return store_.ForkSession(id, options);
    }
    case v1::ShardCall::kFlush:
      return store_.FlushSession(id, deadline);
    case v1::ShardCall::kExtendPrefix: {
      const v1::ExtendPrefixRequest& extend = call.extend_prefix();
      ATTIC_ASSIGN_OR_RETURN(const auto hashes, HashesOf(extend.prefix_hashes()));
      return store_.ExtendPrefix(id, extend.first_block(), hashes);
    }
    case v1::ShardCall::kRenewLease:
      return store_.RenewLease(id);
    case v1::ShardCall::kPin:
      return store_.PinSession(id, call.pin().pinned());
    default:
      return absl::InvalidArgumentError("call: none that changes a session");
  }
}

absl::StatusOr<std::vector<PrefixHash>> ShardCaller::HashesOf(const std::string& own) const {
  if (own.empty()) return shared_hashes_;
  return wire::PrefixHashesFromWire(own);
}

}  // namespace attic
