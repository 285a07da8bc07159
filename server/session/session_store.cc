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
#include "server/session/call_slots.h"
#include "server/session/live_sessions.h"
#include "server/session/periodic_thread.h"
#include "server/session/placement_rules.h"
#include "server/session/random_id.h"
#include "server/session/session.h"
#include "server/session/session_admission.h"
#include "server/session/shard_rows.h"
#include "server/session/store_disk.h"
#include "server/session/store_queries.h"
#include "server/session/store_snapshots.h"
#include "server/session/tenant_budgets.h"
#include "server/session/validation.h"

namespace attic {
namespace {

constexpr char kVersion[] = "0.1.0";

// How long an import waits for vectors of others to leave memory.
constexpr absl::Duration kImportRoomWait = absl::Seconds(5);

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
        sessions_(options.limits, options.clock, scheduler_),
        snapshots_(kSnapshotsMax, options_, sessions_, resources_,
                   [this](uint64_t bytes) { MakeImportRoom(bytes); }),
        queries_(options.limits, boot_id_, sessions_, std::move(query_pool)),
        scheduler_(BuildThreads(options.build_threads)),
        sweeper_(options.sweep_interval, [this] { sessions_.CloseEnded(); }) {
    resources_.tenants = std::make_shared<TenantBudgets>(budget_, options.limits.tenant_bytes_max);
    resources_.index = options.index;
    resources_.index.vectors_budget = budget_;
    resources_.budget = budget_;
  }

  // What recovery schedules must not come when the scheduler is gone.
  ~SessionStoreImpl() override {
    if (disk_ != nullptr) disk_->StopRecovery();
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
  absl::StatusOr<std::unique_ptr<SnapshotSource>> ExportSession(
      const std::string& session_id, const ExportOptions& options) override {
    return snapshots_.Export(session_id, options);
  }
  absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportSession(const ImportOptions& options,
                                                              ImportAdmission admit) override {
    return snapshots_.Import(options, std::move(admit));
  }
  absl::StatusOr<AppendAck> Append(const AppendBatch& batch, absl::Time deadline) override;
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override {
    return queries_.Attend(items, deadline);
  }
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override {
    return queries_.Search(request, deadline);
  }
  absl::StatusOr<std::shared_ptr<const Placement>> PlacementOf(
      const std::string& session_id) override;
  std::vector<PlacedSession> ListPlaced(const std::string& after_session_id, size_t page_size,
                                        std::span<const uint32_t> slots) override {
    return attic::ListPlaced(sessions_.catalogue(), after_session_id, page_size, slots);
  }
  absl::StatusOr<RowsDigest> DigestRows(const std::string& session_id,
                                        absl::Time deadline) override;
  absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::string& session_id, int64_t begin,
                                                       int64_t end) override;
  StoreStatus Status() override;
  size_t CloseEndedSessions() override { return sessions_.CloseEnded(); }
  absl::Status WaitForBuilds(absl::Time deadline) override;

 private:
  absl::StatusOr<std::shared_ptr<Session>> Create(const OpenSessionRequest& request);
  SessionDescription DescribeCreated(const Session& session) const;
  void MakeImportRoom(uint64_t bytes);

  const SessionStoreOptions options_;
  const std::string boot_id_;
  const absl::Time start_;
  const std::shared_ptr<MemoryBudget> budget_;
  SessionResources resources_;
  LiveSessions sessions_;
  StoreSnapshots snapshots_;
  CallSlots row_readers_{"row readers", kRowReadersMax};
  StoreQueries queries_;
  std::unique_ptr<StoreDisk> disk_;  // null without a data directory
  // Builds stop before what they use goes away.
  BuildScheduler scheduler_;
  PeriodicThread sweeper_;
};

absl::Status SessionStoreImpl::OpenDisk(const std::shared_ptr<ThreadPool>& query_pool) {
  ATTIC_ASSIGN_OR_RETURN(disk_, StoreDisk::Open(options_.disk, budget_, sessions_.catalogue()));
  resources_.disk = disk_->store();
  resources_.on_disk_write = [disk = disk_.get()] { disk->NotifyWrite(); };
  ATTIC_RETURN_IF_ERROR(disk_->StartRecovery(
      resources_, query_pool, [this](const std::shared_ptr<Session>& s) { sessions_.TakeUp(s); }));
  // Leases run anew.
  for (const auto& session : sessions_.catalogue().All()) session->lease().Renew(options_.clock());
  return absl::OkStatus();
}

absl::StatusOr<SessionDescription> SessionStoreImpl::OpenSession(
    const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(CheckOpen(request, options_));
  OpenSessionRequest named = request;
  if (named.session_id.empty()) named.session_id = RandomId();
  // Two callers may create the same session at once: the loser finds the winner's.
  for (;;) {
    ATTIC_ASSIGN_OR_RETURN(const auto held, sessions_.FindSame(named));
    if (held != nullptr) return sessions_.Describe(*held);
    ATTIC_RETURN_IF_ERROR(sessions_.RoomForSession(named.tenant));
    ATTIC_ASSIGN_OR_RETURN(const auto created,
                           sessions_.WithRoom(named.tenant, [&] { return Create(named); }));
    created->lease().SetPinned(named.pinned);
    const absl::Status added = sessions_.Publish(created, named.prefix_hashes);
    if (added.ok()) return DescribeCreated(*created);
    if (!absl::IsAlreadyExists(added)) return added;
  }
}

absl::StatusOr<std::shared_ptr<Session>> SessionStoreImpl::Create(
    const OpenSessionRequest& request) {
  if (request.reuse_prefix) {
    ATTIC_ASSIGN_OR_RETURN(auto fork, sessions_.ForkPrefix(request));
    if (fork != nullptr) return fork;
  }
  return Session::Create(request, resources_);
}

SessionDescription SessionStoreImpl::DescribeCreated(const Session& session) const {
  SessionDescription description = sessions_.Describe(session);
  description.created = true;
  return description;
}

absl::StatusOr<SessionDescription> SessionStoreImpl::DescribeSession(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Find(session_id));
  return sessions_.Describe(*session);
}

absl::StatusOr<std::vector<HeadPlan>> SessionStoreImpl::PlanSession(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Find(session_id));
  return session->Plan();
}

std::vector<SessionDescription> SessionStoreImpl::ListSessions(const std::string& after_session_id,
                                                               size_t page_size) {
  std::vector<SessionDescription> descriptions;
  for (const auto& session : sessions_.catalogue().After(after_session_id, page_size)) {
    descriptions.push_back(sessions_.Describe(*session));
  }
  return descriptions;
}

absl::StatusOr<SessionDescription> SessionStoreImpl::ForkSession(const std::string& session_id,
                                                                 const ForkOptions& options) {
  if (options.position < 0) return absl::InvalidArgumentError("position: must not be negative");
  const std::string new_id = options.new_session_id.empty() ? RandomId() : options.new_session_id;
  ATTIC_RETURN_IF_ERROR(ValidateSessionId(new_id, "new_session_id", options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(session_id));
  ATTIC_RETURN_IF_ERROR(CheckForkPlaced(session_id, new_id, session->attributes().placement));
  if (sessions_.catalogue().Contains(new_id)) {
    return absl::AlreadyExistsError(absl::StrCat("new_session_id: ", new_id, " is taken"));
  }
  ATTIC_RETURN_IF_ERROR(sessions_.RoomForSession(session->attributes().tenant));
  SessionAttributes attributes = session->attributes();
  attributes.durability = options.durability.value_or(attributes.durability);
  attributes.reused_tokens = 0;
  ATTIC_RETURN_IF_ERROR(CheckDurability(attributes.durability, options_));
  ATTIC_ASSIGN_OR_RETURN(const auto fork,
                         sessions_.Fork(*session, options.position, new_id, attributes));
  return DescribeCreated(*fork);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::TruncateSession(const std::string& session_id,
                                                                     int64_t position) {
  if (position < 0) return absl::InvalidArgumentError("position: must not be negative");
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(session_id));
  ATTIC_RETURN_IF_ERROR(sessions_.Truncate(*session, position));
  return sessions_.Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::FlushSession(const std::string& session_id,
                                                                  absl::Time) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(session_id));
  if (session->attributes().durability != Durability::kDurable) {
    return absl::FailedPreconditionError("session_id: the session is in memory");
  }
  ATTIC_RETURN_IF_ERROR(disk_->store()->Sync());
  return sessions_.Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::ExtendPrefix(
    const std::string& session_id, uint32_t first_block, std::span<const PrefixHash> hashes) {
  ATTIC_RETURN_IF_ERROR(ValidatePrefix(first_block, hashes.size(), options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(session_id));
  ATTIC_RETURN_IF_ERROR(sessions_.ExtendPrefix(*session, first_block, hashes));
  return sessions_.Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::RenewLease(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(session_id));
  return sessions_.Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::PinSession(const std::string& session_id,
                                                                bool pinned) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Find(session_id));
  ATTIC_RETURN_IF_ERROR(sessions_.SetPinned(*session, pinned));
  return sessions_.Describe(*session);
}

absl::Status SessionStoreImpl::CloseSession(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Find(session_id));
  ATTIC_ASSIGN_OR_RETURN(const bool removed, sessions_.Forget(session));
  return removed ? absl::OkStatus() : NoSuchSession(session_id);
}

void SessionStoreImpl::MakeImportRoom(uint64_t bytes) {
  if (disk_ == nullptr) return;
  disk_->MakeRoom(bytes, absl::Now() + kImportRoomWait).IgnoreError();
}

absl::StatusOr<AppendAck> SessionStoreImpl::Append(const AppendBatch& batch, absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Use(batch.session_id));
  ATTIC_RETURN_IF_ERROR(CheckHoldsTokens(session->id(), session->attributes().placement));
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
  const auto append = [&] { return layer->Append(batch, deadline); };
  ATTIC_ASSIGN_OR_RETURN(const AppendAck ack,
                         sessions_.WithRoom(session->attributes().tenant, append));
  layer->ScheduleBuilds(scheduler_);
  return ack;
}

absl::StatusOr<std::shared_ptr<const Placement>> SessionStoreImpl::PlacementOf(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(auto session, sessions_.Find(session_id));
  const std::optional<Placement>& placement = session->attributes().placement;
  if (!placement.has_value()) return nullptr;
  return std::shared_ptr<const Placement>(std::move(session), &*placement);
}

absl::StatusOr<RowsDigest> SessionStoreImpl::DigestRows(const std::string& session_id,
                                                        absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Find(session_id));
  ATTIC_ASSIGN_OR_RETURN(const std::shared_ptr<void> slot, row_readers_.Take());
  return attic::DigestRows(*session, deadline);
}

absl::StatusOr<std::unique_ptr<RowsSource>> SessionStoreImpl::ReadRows(
    const std::string& session_id, int64_t begin, int64_t end) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, sessions_.Find(session_id));
  ATTIC_ASSIGN_OR_RETURN(std::shared_ptr<void> slot, row_readers_.Take());
  return attic::ReadRows(session, begin, end, std::move(slot));
}

StoreStatus SessionStoreImpl::Status() {
  StoreStatus status;
  status.version = kVersion;
  status.boot_id = boot_id_;
  status.threads = queries_.thread_count();
  status.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  status.vector_target = VectorTargetName();
  status.evicted_sessions = sessions_.evicted();
  status.memory_limit_bytes = budget_->bytes_max();
  status.memory_charged_bytes = budget_->used_bytes();
  for (const auto& session : sessions_.catalogue().All()) {
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
