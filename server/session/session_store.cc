#include "server/session/session_store.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention/vector_kernels.h"
#include "base/check.h"
#include "base/memory_budget.h"
#include "base/status_macros.h"
#include "server/session/build_scheduler.h"
#include "server/session/catalogue.h"
#include "server/session/query_executor.h"
#include "server/session/random_id.h"
#include "server/session/session.h"
#include "server/session/validation.h"

namespace attic {
namespace {

constexpr char kVersion[] = "0.1.0";

size_t BuildThreads(size_t requested) {
  if (requested > 0) return requested;
  return std::max(1u, std::thread::hardware_concurrency() / 2);
}

class SessionStoreImpl : public SessionStore {
 public:
  SessionStoreImpl(const SessionStoreOptions& options, std::shared_ptr<ThreadPool> query_pool)
      : options_(options),
        boot_id_(RandomId()),
        start_(absl::Now()),
        budget_(std::make_shared<MemoryBudget>(options.limits.memory_bytes_max)),
        catalogue_(options.limits.sessions_max),
        executor_(std::move(query_pool)),
        scheduler_(BuildThreads(options.build_threads)) {
    resources_.index = options.index;
    resources_.index.vectors_budget = budget_;
    resources_.budget = budget_;
  }

  // To be called once, before anything else, when there is a data directory.
  absl::Status OpenDisk(const std::shared_ptr<ThreadPool>& query_pool);

  absl::StatusOr<SessionDescription> OpenSession(const OpenSessionRequest& request) override;
  absl::StatusOr<SessionDescription> DescribeSession(const std::string& session_id) override;
  absl::StatusOr<std::vector<HeadPlan>> PlanSession(const std::string& session_id) override;
  std::vector<SessionDescription> ListSessions(const std::string& after_session_id,
                                               size_t page_size) override;
  absl::StatusOr<SessionDescription> ForkSession(const std::string& session_id,
                                                 const ForkOptions& options) override;
  absl::StatusOr<SessionDescription> TruncateSession(const std::string& session_id,
                                                     int64_t position) override;
  absl::StatusOr<SessionDescription> FlushSession(const std::string& session_id,
                                                  absl::Time deadline) override;
  absl::StatusOr<SessionDescription> ExtendPrefix(const std::string& session_id,
                                                  uint32_t first_block,
                                                  std::span<const PrefixHash> hashes) override;
  absl::StatusOr<SessionDescription> RenewLease(const std::string& session_id) override;
  absl::StatusOr<SessionDescription> PinSession(const std::string& session_id,
                                                bool pinned) override;
  absl::Status CloseSession(const std::string& session_id) override;
  absl::StatusOr<AppendAck> Append(const AppendBatch& batch, absl::Time deadline) override;
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override;
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override;
  StoreStatus Status() override;
  absl::Status WaitForBuilds(absl::Time deadline) override;

 private:
  absl::StatusOr<PreparedQuery> Prepare(const AttendItem& item) const;
  absl::Status CheckDurability(Durability durability) const {
    if (durability == Durability::kMemory || disk_ != nullptr) return absl::OkStatus();
    return absl::FailedPreconditionError("durability: this store has no data directory");
  }

  const SessionStoreOptions options_;
  const std::string boot_id_;
  const absl::Time start_;
  const std::shared_ptr<MemoryBudget> budget_;
  SessionResources resources_;
  Catalogue catalogue_;
  QueryExecutor executor_;
  std::unique_ptr<StoreDisk> disk_;  // null without a data directory
  // Builds stop before what they use goes away.
  BuildScheduler scheduler_;
};

absl::Status SessionStoreImpl::OpenDisk(const std::shared_ptr<ThreadPool>& query_pool) {
  ATTIC_ASSIGN_OR_RETURN(disk_, StoreDisk::Open(options_.disk, budget_, catalogue_));
  resources_.disk = disk_->store();
  resources_.on_disk_write = [disk = disk_.get()] { disk->NotifyWrite(); };
  return disk_->StartRecovery(resources_, query_pool, [this](const std::shared_ptr<Session>& s) {
    for (const auto& layer : s->layers()) layer->ScheduleBuilds(scheduler_);
  });
}

absl::StatusOr<SessionDescription> SessionStoreImpl::OpenSession(
    const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(ValidateOpen(request, options_.limits));
  ATTIC_RETURN_IF_ERROR(CheckDurability(request.durability));
  OpenSessionRequest named = request;
  if (named.session_id.empty()) named.session_id = RandomId();
  // Two callers may create the same session at once: the loser finds the winner's.
  for (;;) {
    if (auto held = catalogue_.Find(named.session_id); held.ok()) {
      ATTIC_RETURN_IF_ERROR((*held)->CheckSame(named));
      return (*held)->Describe();
    }
    ATTIC_RETURN_IF_ERROR(catalogue_.CheckRoom());
    ATTIC_ASSIGN_OR_RETURN(auto created, Session::Create(named, resources_));
    const absl::Status added = catalogue_.Add(created);
    if (added.ok()) return created->Describe();
    ATTIC_RETURN_IF_ERROR(created->RemoveFromDisk());
    if (!absl::IsAlreadyExists(added)) return added;
  }
}

absl::StatusOr<SessionDescription> SessionStoreImpl::DescribeSession(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Describe();
}

absl::StatusOr<std::vector<HeadPlan>> SessionStoreImpl::PlanSession(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Plan();
}

std::vector<SessionDescription> SessionStoreImpl::ListSessions(
    const std::string& after_session_id, size_t page_size) {
  std::vector<SessionDescription> descriptions;
  for (const auto& session : catalogue_.After(after_session_id, page_size)) {
    descriptions.push_back(session->Describe());
  }
  return descriptions;
}

absl::StatusOr<SessionDescription> SessionStoreImpl::ForkSession(const std::string& session_id,
                                                                   const ForkOptions& options) {
  if (options.position < 0) return absl::InvalidArgumentError("position: must not be negative");
  const std::string new_id = options.new_session_id.empty() ? RandomId() : options.new_session_id;
  ATTIC_RETURN_IF_ERROR(ValidateSessionId(new_id, "new_session_id", options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  if (catalogue_.Contains(new_id)) {
    return absl::AlreadyExistsError(absl::StrCat("new_session_id: ", new_id, " is taken"));
  }
  ATTIC_RETURN_IF_ERROR(catalogue_.CheckRoom());
  SessionAttributes attributes = session->attributes();
  attributes.durability = options.durability.value_or(attributes.durability);
  attributes.reused_tokens = 0;
  ATTIC_RETURN_IF_ERROR(CheckDurability(attributes.durability));
  ATTIC_ASSIGN_OR_RETURN(const auto fork, session->Fork(options.position, new_id, attributes));
  if (const absl::Status added = catalogue_.Add(fork); !added.ok()) {
    ATTIC_RETURN_IF_ERROR(fork->RemoveFromDisk());
    return added;
  }
  for (const auto& layer : fork->layers()) layer->ScheduleBuilds(scheduler_);
  return fork->Describe();
}

absl::StatusOr<SessionDescription> SessionStoreImpl::TruncateSession(
    const std::string& session_id, int64_t position) {
  if (position < 0) return absl::InvalidArgumentError("position: must not be negative");
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  ATTIC_RETURN_IF_ERROR(session->Truncate(position));
  for (const auto& layer : session->layers()) layer->ScheduleBuilds(scheduler_);
  return session->Describe();
}

absl::StatusOr<SessionDescription> SessionStoreImpl::FlushSession(const std::string& session_id,
                                                                  absl::Time) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  if (session->attributes().durability != Durability::kDurable) {
    return absl::FailedPreconditionError("session_id: the session is in memory");
  }
  ATTIC_RETURN_IF_ERROR(disk_->store()->Sync());
  return session->Describe();
}

absl::StatusOr<SessionDescription> SessionStoreImpl::ExtendPrefix(
    const std::string& session_id, uint32_t first_block, std::span<const PrefixHash> hashes) {
  ATTIC_RETURN_IF_ERROR(ValidatePrefix(first_block, hashes.size(), options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Describe();
}

absl::StatusOr<SessionDescription> SessionStoreImpl::RenewLease(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Describe();
}

absl::StatusOr<SessionDescription> SessionStoreImpl::PinSession(const std::string& session_id,
                                                                  bool) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Describe();
}

absl::Status SessionStoreImpl::CloseSession(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  ATTIC_RETURN_IF_ERROR(session->RemoveFromDisk());
  return catalogue_.Remove(session_id);
}

absl::StatusOr<AppendAck> SessionStoreImpl::Append(const AppendBatch& batch,
                                                     absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(batch.session_id));
  ATTIC_ASSIGN_OR_RETURN(StoredLayer* const layer, session->FindLayer(batch.layer));
  ATTIC_RETURN_IF_ERROR(session->CheckChangeable());
  ATTIC_RETURN_IF_ERROR(ValidateAppendShape(batch, session->fingerprint(), options_.limits));
  const auto has_room = [&] {
    return layer->most_pending_segments() <= options_.limits.pending_segments_max;
  };
  if (!has_room()) {
    // A head whose build failed is not queued any more: ask again.
    layer->ScheduleBuilds(scheduler_);
    ATTIC_RETURN_IF_ERROR(scheduler_.WaitForRoom(has_room, deadline));
  }
  ATTIC_RETURN_IF_ERROR(ValidateAppendContent(batch, session->fingerprint()));
  if (disk_ != nullptr) {
    ATTIC_RETURN_IF_ERROR(disk_->MakeRoom(batch.keys.size() + batch.values.size(), deadline));
  }
  ATTIC_ASSIGN_OR_RETURN(const AppendAck ack, layer->Append(batch, deadline));
  layer->ScheduleBuilds(scheduler_);
  return ack;
}

absl::StatusOr<PreparedQuery> SessionStoreImpl::Prepare(const AttendItem& item) const {
  ATTIC_RETURN_IF_ERROR(ValidateRange(item.range));
  ATTIC_RETURN_IF_ERROR(ValidateSelection(item.selection, options_.limits));
  PreparedQuery prepared;
  ATTIC_ASSIGN_OR_RETURN(prepared.session, catalogue_.Find(item.session_id));
  ATTIC_ASSIGN_OR_RETURN(const StoredLayer* stored, prepared.session->FindLayer(item.layer));
  ATTIC_RETURN_IF_ERROR(ValidateQueries(item.queries, prepared.session->fingerprint()));
  prepared.layer = stored->Snapshot();
  if (prepared.layer.watermark < item.min_watermark) {
    return absl::FailedPreconditionError(absl::StrCat("min_watermark: ", item.min_watermark,
                                                      " asked for, the layer's watermark is ",
                                                      prepared.layer.watermark));
  }
  ATTIC_RETURN_IF_ERROR(prepared.session->CheckReadable(item.range.end, prepared.layer.watermark));
  prepared.range.end = std::min(item.range.end, prepared.layer.watermark);
  prepared.range.begin = std::min(item.range.begin, prepared.range.end);
  prepared.mode = item.mode;
  if (item.mode != AttendMode::kExact) prepared.selection = item.selection;
  prepared.queries = item.queries;
  return prepared;
}

absl::StatusOr<std::vector<AttendAnswer>> SessionStoreImpl::Attend(
    std::span<const AttendItem> items, absl::Time deadline) {
  if (items.empty()) return absl::InvalidArgumentError("items: must not be empty");
  if (items.size() > options_.limits.attend_items_max) {
    return absl::ResourceExhaustedError(absl::StrCat("items: ", items.size(),
                                                     " is over the limit attend_items_max of ",
                                                     options_.limits.attend_items_max));
  }
  std::vector<AttendAnswer> answers(items.size());
  std::vector<PreparedQuery> queries;
  std::vector<AttendAnswer*> filled;
  size_t answer_bytes = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    auto prepared = Prepare(items[i]);
    answers[i].boot_id = boot_id_;
    answers[i].status = prepared.status();
    if (!prepared.ok()) continue;
    const Fingerprint& fingerprint = prepared->session->fingerprint();
    // Beside the output: log-sum-exp, coverage and estimated error.
    answer_bytes += sizeof(float) * fingerprint.q_heads * (size_t{fingerprint.value_dim} + 3);
    queries.push_back(*std::move(prepared));
    filled.push_back(&answers[i]);
  }
  if (answer_bytes > options_.limits.message_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "items: an answer of ", answer_bytes, " bytes is over the limit message_bytes_max of ",
        options_.limits.message_bytes_max));
  }
  executor_.Attend(queries, deadline, filled);
  return answers;
}

absl::StatusOr<SearchAnswer> SessionStoreImpl::Search(const SearchRequest& request,
                                                        absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const PreparedQuery query, Prepare({.session_id = request.session_id,
                                                             .layer = request.layer,
                                                             .range = request.range,
                                                             .mode = request.mode,
                                                             .selection = request.selection,
                                                             .queries = request.queries}));
  ATTIC_RETURN_IF_ERROR(ValidateSearch(request, query.session->fingerprint(), options_.limits));
  if (absl::Now() >= deadline) return absl::DeadlineExceededError("search: deadline passed");
  return executor_.Search(query, request.k, request.with_vectors);
}

StoreStatus SessionStoreImpl::Status() {
  StoreStatus status;
  status.version = kVersion;
  status.boot_id = boot_id_;
  status.threads = executor_.thread_count();
  status.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  status.vector_target = VectorTargetName();
  for (const auto& session : catalogue_.All()) {
    ++status.sessions;
    for (const auto& layer : session->layers()) {
      status.tokens += static_cast<uint64_t>(layer->watermark());
      status.pending_segments += static_cast<uint64_t>(layer->pending_segments());
      status.memory += layer->memory_use();
    }
  }
  if (disk_ != nullptr) disk_->Describe(status);
  return status;
}

absl::Status SessionStoreImpl::WaitForBuilds(absl::Time deadline) {
  if (disk_ != nullptr) ATTIC_RETURN_IF_ERROR(disk_->WaitForRecovery(deadline));
  ATTIC_RETURN_IF_ERROR(scheduler_.WaitUntilIdle(deadline));
  // What still waits failed to build.
  if (Status().pending_segments > 0) return scheduler_.last_error();
  return absl::OkStatus();
}

std::shared_ptr<ThreadPool> QueryPool(const SessionStoreOptions& options) {
  return std::make_shared<ThreadPool>(options.threads, ThreadPool::Placement::kOnePerCpu);
}

}  // namespace

std::unique_ptr<SessionStore> SessionStore::Create(const SessionStoreOptions& options,
                                                   std::shared_ptr<ThreadPool> query_pool) {
  ATTIC_CHECK(options.disk.store.directory.empty());
  if (query_pool == nullptr) query_pool = QueryPool(options);
  return std::make_unique<SessionStoreImpl>(options, std::move(query_pool));
}

absl::StatusOr<std::unique_ptr<SessionStore>> SessionStore::Open(
    const SessionStoreOptions& options, std::shared_ptr<ThreadPool> query_pool) {
  if (query_pool == nullptr) query_pool = QueryPool(options);
  auto store = std::make_unique<SessionStoreImpl>(options, query_pool);
  if (!options.disk.store.directory.empty()) ATTIC_RETURN_IF_ERROR(store->OpenDisk(query_pool));
  return std::unique_ptr<SessionStore>(std::move(store));
}

}  // namespace attic
