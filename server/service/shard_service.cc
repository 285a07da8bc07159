#include "server/service/shard_service.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/service/pulled_stream.h"
#include "server/service/shard_calls.h"
#include "server/service/unary_call.h"
#include "wire/convert.h"

namespace attic {
namespace {

// Entries of one message of an inventory: some 200 KiB.
constexpr size_t kInventoryEntries = 1024;

// One message of calls. Workers on the executor take them in turn; the last to end finishes the
// call. Each call is recorded by its own method, and the message as Call. Lives as long as a
// worker.
class CallBatch : public std::enable_shared_from_this<CallBatch> {
 public:
  CallBatch(grpc::CallbackServerContext* context, grpc::ServerUnaryReactor* reactor,
            const ShardContext& server, const CallTimer& timer, const v1::ShardCalls* request,
            v1::ShardResults* response, std::vector<PrefixHash> shared_hashes)
      : context_(context),
        reactor_(reactor),
        server_(server),
        timer_(timer),
        deadline_(DeadlineOf(*context)),
        request_(*request),
        response_(*response),
        caller_(server.store, server.gate, request->epoch(), std::move(shared_hashes)) {
    for (int i = 0; i < request_.calls_size(); ++i) response_.add_results();
  }

  void Start() {
    const size_t wanted =
        std::min<size_t>(server_.calls_together_max, static_cast<size_t>(request_.calls_size()));
    working_ = wanted + 1;
    absl::Status queued;
    size_t started = 0;
    for (; started < wanted && queued.ok(); ++started) {
      queued = server_.call_executor.Schedule([self = shared_from_this()] { self->Work(); });
    }
    // Those that found a thread work for the others, too.
    const size_t missing = queued.ok() ? 0 : wanted - started + 1;
    if (missing == wanted && wanted > 0) {
      Finish(queued);
      return;
    }
    End(missing + 1);
  }

 private:
  void Work() {
    for (;;) {
      const int i = next_.fetch_add(1);
      if (i >= request_.calls_size()) break;
      v1::ShardResult& result = *response_.mutable_results(i);
      if (context_->IsCancelled()) {
        *result.mutable_error() = wire::ToWire(absl::CancelledError("the caller left"));
      } else {
        caller_.Answer(request_.calls(i), deadline_, result);
      }
      timer_.For(MethodOf(request_.calls(i)))
          .End(static_cast<absl::StatusCode>(result.error().code()));
    }
    End(1);
  }

  void End(size_t workers) {
    if (working_.fetch_sub(workers) > workers) return;
    response_.set_epoch(server_.gate.epoch());
    response_.set_boot_id(server_.boot_id);
    Finish(absl::OkStatus());
  }

  void Finish(const absl::Status& status) {
    timer_.End(status.code());
    reactor_->Finish(ToGrpcStatus(status));
  }

  grpc::CallbackServerContext* const context_;
  grpc::ServerUnaryReactor* const reactor_;
  const ShardContext& server_;
  const CallTimer timer_;
  const absl::Time deadline_;
  const v1::ShardCalls& request_;
  v1::ShardResults& response_;
  const ShardCaller caller_;
  std::atomic<int> next_{0};
  std::atomic<size_t> working_{0};
};

grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const CallTimer& timer,
                                 const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  timer.End(status.code());
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::StatusOr<std::vector<PrefixHash>> CheckCalls(const v1::ShardCalls& request,
                                                   const Limits& limits) {
  if (static_cast<size_t>(request.calls_size()) > limits.shard_calls_max) {
    return absl::ResourceExhaustedError(absl::StrCat("calls: ", request.calls_size(),
                                                     " is over the limit shard_calls_max of ",
                                                     limits.shard_calls_max));
  }
  return wire::PrefixHashesFromWire(request.prefix_hashes());
}

absl::Status CheckAsked(const v1::InventoryRequest& request, const Limits& limits) {
  if (static_cast<size_t>(request.session_ids_size()) <= limits.shard_calls_max) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat("session_ids: ", request.session_ids_size(),
                                                   " is over the limit shard_calls_max of ",
                                                   limits.shard_calls_max));
}

void AddEntry(const PlacedSession& session, v1::ShardInventory& page) {
  v1::ShardEntry* const entry = page.add_entries();
  entry->set_session_id(session.session_id);
  entry->set_slot(session.slot);
  entry->set_replicas(session.replicas);
  entry->set_watermark(session.watermark);
  entry->set_durable(session.durable);
}

// Pages through what the store holds.
class InventoryPages {
 public:
  InventoryPages(SessionStore& store, const v1::InventoryRequest& request, std::string boot_id)
      : store_(store),
        boot_id_(std::move(boot_id)),
        ids_(request.session_ids().begin(), request.session_ids().end()),
        slots_(request.slots().begin(), request.slots().end()) {
    std::sort(slots_.begin(), slots_.end());
  }

  bool Next(v1::ShardInventory& page) {
    if (ended_) return false;
    page.set_boot_id(boot_id_);
    return ids_.empty() ? NextOfSlots(page) : NextOfIds(page);
  }

 private:
  bool NextOfSlots(v1::ShardInventory& page) {
    const auto sessions = store_.ListPlaced(after_, kInventoryEntries, slots_);
    ended_ = sessions.size() < kInventoryEntries;
    for (const PlacedSession& session : sessions) AddEntry(session, page);
    if (sessions.empty()) return after_.empty();
    after_ = sessions.back().session_id;
    return true;
  }

  bool NextOfIds(v1::ShardInventory& page) {
    for (size_t i = 0; i < kInventoryEntries && next_id_ < ids_.size(); ++i) {
      const auto session = FindPlaced(store_, ids_[next_id_++]);
      if (session.ok()) AddEntry(*session, page);
    }
    ended_ = next_id_ == ids_.size();
    return true;
  }

  SessionStore& store_;
  const std::string boot_id_;
  const std::vector<std::string> ids_;  // empty: all of the slots
  size_t next_id_ = 0;
  std::vector<uint32_t> slots_;  // in order
  std::string after_;
  bool ended_ = false;
};

void ToWireRows(const std::string& session_id, const ShardRows& rows, v1::AppendRequest& message) {
  message.set_session_id(session_id);
  message.set_layer(rows.layer);
  message.set_begin_position(rows.begin_position);
  message.set_count(static_cast<uint32_t>(rows.count));
  message.set_keys(rows.keys.data(), rows.keys.size());
  message.set_values(rows.values.data(), rows.values.size());
}

}  // namespace

absl::Status ShardServiceImpl::CheckClustered() const {
  if (context_.gate.clustered()) return absl::OkStatus();
  return absl::FailedPreconditionError("this store is no node of a cluster");
}

grpc::ServerUnaryReactor* ShardServiceImpl::Call(grpc::CallbackServerContext* context,
                                                 const v1::ShardCalls* request,
                                                 v1::ShardResults* response) {
  const CallTimer timer(context_.metrics, Method::kCall);
  if (const absl::Status status = CheckClustered(); !status.ok()) {
    return Refuse(context, timer, status);
  }
  auto shared_hashes = CheckCalls(*request, context_.limits);
  if (!shared_hashes.ok()) return Refuse(context, timer, shared_hashes.status());
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  std::make_shared<CallBatch>(context, reactor, context_, timer, request, response,
                              *std::move(shared_hashes))
      ->Start();
  return reactor;
}

grpc::ServerWriteReactor<v1::ShardInventory>* ShardServiceImpl::Inventory(
    grpc::CallbackServerContext* context, const v1::InventoryRequest* request) {
  auto pages = std::make_shared<InventoryPages>(context_.store, *request, context_.boot_id);
  return ServePulled<v1::ShardInventory>(
      context, context_.transfer_executor, context_.streams, {context_.metrics, Method::kInventory},
      [this, pages, epoch = request->epoch(), asked = CheckAsked(*request, context_.limits)](
          v1::ShardInventory& page) -> absl::StatusOr<bool> {
        ATTIC_RETURN_IF_ERROR(CheckClustered());
        ATTIC_RETURN_IF_ERROR(asked);
        if (context_.gate.epoch() < epoch) {
          return absl::UnavailableError(
              absl::StrCat("epoch: ", epoch, " asked for, this node does not know it yet"));
        }
        if (!context_.gate.Settled(epoch)) {
          return absl::UnavailableError(
              absl::StrCat("epoch: ", epoch, " asked for, writes by an older one are under way"));
        }
        return pages->Next(page);
      });
}

grpc::ServerUnaryReactor* ShardServiceImpl::Digest(grpc::CallbackServerContext* context,
                                                   const v1::DigestRequest* request,
                                                   v1::DigestResponse* response) {
  return ServeUnary(context, context_.transfer_executor, {context_.metrics, Method::kDigest},
                    [this, request, response](absl::Time deadline) -> absl::Status {
                      ATTIC_RETURN_IF_ERROR(CheckClustered());
                      ATTIC_ASSIGN_OR_RETURN(
                          const RowsDigest digest,
                          context_.store.DigestRows(request->session_id(), deadline));
                      response->set_watermark(digest.watermark);
                      response->mutable_blocks()->Add(digest.blocks.begin(), digest.blocks.end());
                      response->set_rest(digest.rest);
                      return absl::OkStatus();
                    });
}

grpc::ServerWriteReactor<v1::AppendRequest>* ShardServiceImpl::ReadRows(
    grpc::CallbackServerContext* context, const v1::ReadRowsRequest* request) {
  struct Reading {
    std::unique_ptr<RowsSource> source;
    ShardRows rows;
  };
  return ServePulled<v1::AppendRequest>(
      context, context_.transfer_executor, context_.streams, {context_.metrics, Method::kReadRows},
      [this, asked = *request,
       reading = std::make_shared<Reading>()](v1::AppendRequest& message) -> absl::StatusOr<bool> {
        ATTIC_RETURN_IF_ERROR(CheckClustered());
        if (reading->source == nullptr) {
          ATTIC_ASSIGN_OR_RETURN(
              reading->source,
              context_.store.ReadRows(asked.session_id(), asked.begin(), asked.end()));
        }
        ATTIC_ASSIGN_OR_RETURN(const bool more, reading->source->Next(reading->rows));
        if (more) ToWireRows(asked.session_id(), reading->rows, message);
        return more;
      });
}

}  // namespace attic
