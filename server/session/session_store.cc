#include "server/session/session_store.h"

#include <algorithm>
#include <atomic>
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
#include "server/session/eviction.h"
#include "server/session/periodic_thread.h"
#include "server/session/placement_rules.h"
#include "server/session/prefix_index.h"
#include "server/session/query_executor.h"
#include "server/session/random_id.h"
#include "server/session/session.h"
#include "server/session/session_export.h"
#include "server/session/session_import.h"
#include "server/session/shard_rows.h"
#include "server/session/tenant_budgets.h"
#include "server/session/validation.h"

namespace attic {
namespace {

constexpr char kVersion[] = "0.1.0";

// How long an import waits for vectors of others to leave memory.
constexpr absl::Duration kImportRoomWait = absl::Seconds(5);

absl::Status NoSlot(const char* what, size_t count_max) {
  return absl::ResourceExhaustedError(
      absl::StrCat(what, ": ", count_max, " are being written or read"));
}

size_t BuildThreads(size_t requested) {
  if (requested > 0) return requested;
  return std::max(1u, std::thread::hardware_concurrency() / 2);
}

const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

// So many at a time. Thread-safe.
class Slots {
 public:
  explicit Slots(size_t count_max) : count_max_(count_max) {}

  // Held until the result is gone, before this goes; null when there is none.
  std::shared_ptr<void> Take() {
    if (taken_.fetch_add(1) < count_max_) {
      return std::shared_ptr<void>(this, [this](void*) { taken_.fetch_sub(1); });
    }
    taken_.fetch_sub(1);
    return nullptr;
  }

 private:
  const size_t count_max_;
  std::atomic<size_t> taken_{0};
};

class SessionStoreImpl : public SessionStore {
 public:
  SessionStoreImpl(const SessionStoreOptions& options, std::shared_ptr<ThreadPool> query_pool)
      : options_(options),
        boot_id_(RandomId()),
        start_(absl::Now()),
        budget_(std::make_shared<MemoryBudget>(options.limits.memory_bytes_max)),
        catalogue_(options.limits.sessions_max, options.limits.tenant_sessions_max),
        executor_(std::move(query_pool)),
        scheduler_(BuildThreads(options.build_threads)),
        sweeper_(options.sweep_interval, [this] { CloseEndedSessions(); }) {
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
      const std::string& session_id, const ExportOptions& options) override;
  absl::StatusOr<std::unique_ptr<SnapshotSink>> ImportSession(const ImportOptions& options,
                                                              ImportAdmission admit) override;
  absl::StatusOr<AppendAck> Append(const AppendBatch& batch, absl::Time deadline) override;
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline) override;
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline) override;
  absl::StatusOr<std::shared_ptr<const Placement>> PlacementOf(
      const std::string& session_id) override;
  std::vector<PlacedSession> ListPlaced(const std::string& after_session_id, size_t page_size,
                                        std::span<const uint32_t> slots) override {
    return attic::ListPlaced(catalogue_, after_session_id, page_size, slots);
  }
  absl::StatusOr<RowsDigest> DigestRows(const std::string& session_id,
                                        absl::Time deadline) override;
  absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::string& session_id, int64_t begin,
                                                       int64_t end) override;
  StoreStatus Status() override;
  size_t CloseEndedSessions() override;
  absl::Status WaitForBuilds(absl::Time deadline) override;

 private:
  class Source;
  class Sink;

  // Whether a session may be made of a snapshot.
  absl::Status Admit(const OpenSessionRequest& request);
  absl::StatusOr<SessionDescription> Publish(SessionImport::Imported imported);

  // The session for a call that renews its lease.
  absl::StatusOr<std::shared_ptr<Session>> Use(const std::string& session_id) const;
  absl::StatusOr<std::shared_ptr<Session>> Create(const OpenSessionRequest& request);
  // A new session that starts with the longest prefix another one holds; null when there is none.
  // RESOURCE_EXHAUSTED when memory is short.
  absl::StatusOr<std::shared_ptr<Session>> ForkPrefix(const OpenSessionRequest& request);
  // Puts a new session where others find it, or forgets it.
  absl::Status Publish(const std::shared_ptr<Session>& session, std::vector<PrefixHash> hashes);
  // For a session that was read from disk.
  void TakeUp(const std::shared_ptr<Session>& session);
  // False when the session was closed already; errors of the disk.
  absl::StatusOr<bool> Forget(const std::shared_ptr<Session>& session);
  // Records what changed beside the tokens.
  absl::Status Save(Session& session) const {
    return session.Save([&] { return prefixes_.Registered(session).hashes; });
  }
  SessionDescription Describe(const Session& session) const;
  SessionDescription DescribeCreated(const Session& session) const;

  // Closes a session whose lease has ended if that may help against `error`; false when there is
  // none.
  bool MakeRoom(const absl::Status& error, const std::string& tenant);
  // What call() returns, called again for as long as there was room to make.
  template <typename Call>
  auto WithRoom(const std::string& tenant, const Call& call) {
    auto result = call();
    while (!result.ok() && MakeRoom(StatusOf(result), tenant)) result = call();
    return result;
  }

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
  PrefixIndex prefixes_;
  Catalogue catalogue_;
  std::atomic<uint64_t> evicted_sessions_{0};
  Slots snapshot_slots_{kSnapshotsMax};
  Slots row_readers_{kRowReadersMax};
  QueryExecutor executor_;
  std::unique_ptr<StoreDisk> disk_;  // null without a data directory
  // Builds stop before what they use goes away.
  BuildScheduler scheduler_;
  PeriodicThread sweeper_;
};

absl::Status SessionStoreImpl::OpenDisk(const std::shared_ptr<ThreadPool>& query_pool) {
  ATTIC_ASSIGN_OR_RETURN(disk_, StoreDisk::Open(options_.disk, budget_, catalogue_));
  resources_.disk = disk_->store();
  resources_.on_disk_write = [disk = disk_.get()] { disk->NotifyWrite(); };
  ATTIC_RETURN_IF_ERROR(disk_->StartRecovery(
      resources_, query_pool, [this](const std::shared_ptr<Session>& s) { TakeUp(s); }));
  // Leases run anew.
  for (const auto& session : catalogue_.All()) session->lease().Renew(options_.clock());
  return absl::OkStatus();
}

void SessionStoreImpl::TakeUp(const std::shared_ptr<Session>& session) {
  std::vector<PrefixHash> hashes = session->recovered_hashes();
  // Tokens that were lost, or had not come yet, may come as others.
  const size_t held = static_cast<size_t>(session->watermark()) / kPrefixBlockTokens;
  const bool cut = hashes.size() > held;
  if (cut) hashes.resize(held);
  prefixes_.Add(session, std::move(hashes));
  if (cut && !Save(*session).ok()) prefixes_.Truncate(*session, 0);
  // Closed in the meantime: whoever did so found nothing to remove yet.
  if (const auto found = catalogue_.Find(session->id()); !found.ok() || *found != session) {
    prefixes_.Remove(*session);
    return;
  }
  if (session->state() != Session::State::kServing) return;
  for (const auto& layer : session->layers()) layer->ScheduleBuilds(scheduler_);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::OpenSession(
    const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(ValidateOpen(request, options_.limits));
  ATTIC_RETURN_IF_ERROR(CheckPlaced(request, options_.node_of_cluster));
  ATTIC_RETURN_IF_ERROR(CheckDurability(request.durability));
  OpenSessionRequest named = request;
  if (named.session_id.empty()) named.session_id = RandomId();
  // Two callers may create the same session at once: the loser finds the winner's.
  for (;;) {
    if (auto held = catalogue_.Find(named.session_id); held.ok()) {
      ATTIC_RETURN_IF_ERROR((*held)->CheckSame(named));
      if ((*held)->lease().Renew(options_.clock())) return Describe(**held);
      // As somebody is about to who ended its lease.
      ATTIC_RETURN_IF_ERROR(Forget(*held).status());
    }
    ATTIC_RETURN_IF_ERROR(
        WithRoom(named.tenant, [&] { return catalogue_.CheckRoom(named.tenant); }));
    ATTIC_ASSIGN_OR_RETURN(const auto created,
                           WithRoom(named.tenant, [&] { return Create(named); }));
    created->lease().SetPinned(named.pinned);
    const absl::Status added = Publish(created, named.prefix_hashes);
    if (added.ok()) return DescribeCreated(*created);
    if (!absl::IsAlreadyExists(added)) return added;
  }
}

absl::StatusOr<std::shared_ptr<Session>> SessionStoreImpl::Create(
    const OpenSessionRequest& request) {
  if (request.reuse_prefix) {
    ATTIC_ASSIGN_OR_RETURN(auto fork, ForkPrefix(request));
    if (fork != nullptr) return fork;
  }
  return Session::Create(request, resources_);
}

absl::StatusOr<std::shared_ptr<Session>> SessionStoreImpl::ForkPrefix(
    const OpenSessionRequest& request) {
  std::vector<PrefixMatch> matches = prefixes_.Find(request);
  // Of what matches, what is held.
  for (PrefixMatch& match : matches) {
    const size_t held = static_cast<size_t>(match.session->watermark()) / kPrefixBlockTokens;
    match.blocks = std::min(match.blocks, held);
  }
  std::stable_sort(matches.begin(), matches.end(),
                   [](const auto& a, const auto& b) { return a.blocks > b.blocks; });
  for (const PrefixMatch& match : matches) {
    if (match.blocks == 0) break;
    Session& source = *match.session;
    if (!source.lease().Renew(options_.clock())) continue;
    const int64_t position = static_cast<int64_t>(match.blocks * kPrefixBlockTokens);
    auto fork = source.Fork(position, request.session_id,
                            {.durability = request.durability,
                             .tenant = request.tenant,
                             .ttl_seconds = request.ttl_seconds,
                             .reused_tokens = position,
                             .placement = request.placement});
    if (absl::IsResourceExhausted(fork.status())) return fork.status();
    if (!fork.ok()) continue;
    if (prefixes_.StillHolds(source, match.truncations)) return *std::move(fork);
    // Truncated or closed in the meantime: the next best may still be there.
    ATTIC_RETURN_IF_ERROR((*fork)->RemoveFromDisk());
  }
  return nullptr;
}

absl::Status SessionStoreImpl::Publish(const std::shared_ptr<Session>& session,
                                       std::vector<PrefixHash> hashes) {
  session->lease().Renew(options_.clock());
  const bool save = !hashes.empty() || session->lease().pinned();
  prefixes_.Add(session, std::move(hashes));
  absl::Status published = save ? Save(*session) : absl::OkStatus();
  if (published.ok()) published = catalogue_.Add(session);
  if (!published.ok()) {
    prefixes_.Remove(*session);
    ATTIC_RETURN_IF_ERROR(session->RemoveFromDisk());
    return published;
  }
  for (const auto& layer : session->layers()) layer->ScheduleBuilds(scheduler_);
  return absl::OkStatus();
}

absl::StatusOr<bool> SessionStoreImpl::Forget(const std::shared_ptr<Session>& session) {
  ATTIC_RETURN_IF_ERROR(session->RemoveFromDisk());
  const bool removed = catalogue_.Remove(session);
  prefixes_.Remove(*session);
  return removed;
}

absl::StatusOr<std::shared_ptr<Session>> SessionStoreImpl::Use(
    const std::string& session_id) const {
  ATTIC_ASSIGN_OR_RETURN(auto session, catalogue_.Find(session_id));
  if (!session->lease().Renew(options_.clock())) return NoSuchSession(session_id);
  return session;
}

SessionDescription SessionStoreImpl::Describe(const Session& session) const {
  SessionDescription description = session.Describe();
  description.lease_seconds_left = absl::ToDoubleSeconds(session.lease().left(options_.clock()));
  return description;
}

SessionDescription SessionStoreImpl::DescribeCreated(const Session& session) const {
  SessionDescription description = Describe(session);
  description.created = true;
  return description;
}

bool SessionStoreImpl::MakeRoom(const absl::Status& error, const std::string& tenant) {
  const Shortage shortage = ShortageOf(error);
  if (shortage == Shortage::kNone) return false;
  const auto victim = ChooseVictim(
      catalogue_.All(), shortage == Shortage::kOfTenant ? &tenant : nullptr, options_.clock());
  if (victim == nullptr) return false;
  const absl::StatusOr<bool> forgotten = Forget(victim);
  if (!forgotten.ok()) return false;
  if (*forgotten) ++evicted_sessions_;
  return true;
}

size_t SessionStoreImpl::CloseEndedSessions() {
  size_t closed = 0;
  for (const auto& session : EndLeases(catalogue_.All(), options_.clock())) {
    if (Forget(session).value_or(false)) ++closed;
  }
  evicted_sessions_ += closed;
  return closed;
}

absl::StatusOr<SessionDescription> SessionStoreImpl::DescribeSession(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return Describe(*session);
}

absl::StatusOr<std::vector<HeadPlan>> SessionStoreImpl::PlanSession(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Plan();
}

std::vector<SessionDescription> SessionStoreImpl::ListSessions(const std::string& after_session_id,
                                                               size_t page_size) {
  std::vector<SessionDescription> descriptions;
  for (const auto& session : catalogue_.After(after_session_id, page_size)) {
    descriptions.push_back(Describe(*session));
  }
  return descriptions;
}

absl::StatusOr<SessionDescription> SessionStoreImpl::ForkSession(const std::string& session_id,
                                                                 const ForkOptions& options) {
  if (options.position < 0) return absl::InvalidArgumentError("position: must not be negative");
  const std::string new_id = options.new_session_id.empty() ? RandomId() : options.new_session_id;
  ATTIC_RETURN_IF_ERROR(ValidateSessionId(new_id, "new_session_id", options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  ATTIC_RETURN_IF_ERROR(CheckForkPlaced(session_id, new_id, session->attributes().placement));
  if (catalogue_.Contains(new_id)) {
    return absl::AlreadyExistsError(absl::StrCat("new_session_id: ", new_id, " is taken"));
  }
  const std::string& tenant = session->attributes().tenant;
  ATTIC_RETURN_IF_ERROR(WithRoom(tenant, [&] { return catalogue_.CheckRoom(tenant); }));
  SessionAttributes attributes = session->attributes();
  attributes.durability = options.durability.value_or(attributes.durability);
  attributes.reused_tokens = 0;
  ATTIC_RETURN_IF_ERROR(CheckDurability(attributes.durability));
  RegisteredPrefix prefix = prefixes_.Registered(*session);
  ATTIC_ASSIGN_OR_RETURN(const auto fork, WithRoom(tenant, [&] {
                           return session->Fork(options.position, new_id, attributes);
                         }));
  const size_t blocks = static_cast<size_t>(options.position) / kPrefixBlockTokens;
  prefix.hashes.resize(std::min(prefix.hashes.size(), blocks));
  // Truncated in the meantime, the fork may hold other tokens than these.
  if (!prefixes_.StillHolds(*session, prefix.truncations)) prefix.hashes.clear();
  ATTIC_RETURN_IF_ERROR(Publish(fork, std::move(prefix.hashes)));
  return DescribeCreated(*fork);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::TruncateSession(const std::string& session_id,
                                                                     int64_t position) {
  if (position < 0) return absl::InvalidArgumentError("position: must not be negative");
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  const std::vector<PrefixHash> hashes = prefixes_.Registered(*session).hashes;
  prefixes_.Truncate(*session, position);
  // Recorded first, so that a crash leaves no hash of what is gone.
  const bool cut = hashes.size() > static_cast<size_t>(position) / kPrefixBlockTokens;
  absl::Status truncated = cut ? Save(*session) : absl::OkStatus();
  if (truncated.ok()) truncated = session->Truncate(position);
  if (!truncated.ok()) {
    // Nothing was forgotten. A hash that is not recorded again is one less to be found by.
    if (cut && prefixes_.Extend(*session, 0, hashes).ok()) Save(*session).IgnoreError();
    return truncated;
  }
  for (const auto& layer : session->layers()) layer->ScheduleBuilds(scheduler_);
  return Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::FlushSession(const std::string& session_id,
                                                                  absl::Time) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  if (session->attributes().durability != Durability::kDurable) {
    return absl::FailedPreconditionError("session_id: the session is in memory");
  }
  ATTIC_RETURN_IF_ERROR(disk_->store()->Sync());
  return Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::ExtendPrefix(
    const std::string& session_id, uint32_t first_block, std::span<const PrefixHash> hashes) {
  ATTIC_RETURN_IF_ERROR(ValidatePrefix(first_block, hashes.size(), options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  ATTIC_RETURN_IF_ERROR(session->CheckChangeable());
  ATTIC_RETURN_IF_ERROR(prefixes_.Extend(*session, first_block, hashes));
  ATTIC_RETURN_IF_ERROR(Save(*session));
  return Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::RenewLease(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  return Describe(*session);
}

absl::StatusOr<SessionDescription> SessionStoreImpl::PinSession(const std::string& session_id,
                                                                bool pinned) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  ATTIC_RETURN_IF_ERROR(session->CheckChangeable());
  if (!session->lease().SetPinned(pinned)) return NoSuchSession(session_id);
  ATTIC_RETURN_IF_ERROR(Save(*session));
  return Describe(*session);
}

absl::Status SessionStoreImpl::CloseSession(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  ATTIC_ASSIGN_OR_RETURN(const bool removed, Forget(session));
  return removed ? absl::OkStatus() : NoSuchSession(session_id);
}

class SessionStoreImpl::Source final : public SnapshotSource {
 public:
  Source(std::shared_ptr<void> slot, std::unique_ptr<SessionExport> session)
      : slot_(std::move(slot)), session_(std::move(session)) {}
  absl::StatusOr<bool> Next(std::string& chunk) override { return session_->Next(chunk); }
  uint64_t bytes_estimated() const override { return session_->bytes_estimated(); }

 private:
  const std::shared_ptr<void> slot_;
  const std::unique_ptr<SessionExport> session_;
};

class SessionStoreImpl::Sink final : public SnapshotSink {
 public:
  Sink(std::shared_ptr<void> slot, SessionStoreImpl& store, SessionImport::Options options)
      : slot_(std::move(slot)), store_(store), import_(std::move(options), store.resources_) {}
  absl::Status Write(std::string_view bytes) override { return import_.Write(bytes); }
  absl::StatusOr<SessionDescription> Finish() override {
    ATTIC_ASSIGN_OR_RETURN(SessionImport::Imported imported, import_.Finish());
    return store_.Publish(std::move(imported));
  }

 private:
  const std::shared_ptr<void> slot_;
  SessionStoreImpl& store_;
  SessionImport import_;
};

absl::StatusOr<std::unique_ptr<SnapshotSource>> SessionStoreImpl::ExportSession(
    const std::string& session_id, const ExportOptions& options) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  std::shared_ptr<void> slot = snapshot_slots_.Take();
  if (slot == nullptr) return NoSlot("snapshots", kSnapshotsMax);
  ATTIC_ASSIGN_OR_RETURN(auto taken,
                         SessionExport::Begin(session, options.position, [this, &session] {
                           return prefixes_.Registered(*session).hashes;
                         }));
  return std::make_unique<Source>(std::move(slot), std::move(taken));
}

absl::Status SessionStoreImpl::Admit(const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(ValidateOpen(request, options_.limits));
  ATTIC_RETURN_IF_ERROR(CheckPlaced(request, options_.node_of_cluster));
  ATTIC_RETURN_IF_ERROR(CheckDurability(request.durability));
  if (request.session_id.empty()) return absl::InvalidArgumentError("session_id: is empty");
  if (catalogue_.Contains(request.session_id)) {
    return absl::AlreadyExistsError(absl::StrCat("session_id: ", request.session_id, " is taken"));
  }
  return WithRoom(request.tenant, [&] { return catalogue_.CheckRoom(request.tenant); });
}

absl::StatusOr<std::unique_ptr<SnapshotSink>> SessionStoreImpl::ImportSession(
    const ImportOptions& options, ImportAdmission admit) {
  ATTIC_RETURN_IF_ERROR(CheckDurability(options.durability));
  if (!options.session_id.empty()) {
    ATTIC_RETURN_IF_ERROR(ValidateSessionId(options.session_id, "session_id", options_.limits));
  }
  std::shared_ptr<void> slot = snapshot_slots_.Take();
  if (slot == nullptr) return NoSlot("snapshots", kSnapshotsMax);
  SessionImport::Options import{
      .session_id = options.session_id,
      .durability = options.durability,
      .placement = options.placement,
      .admit = [this, admit = std::move(admit)](const OpenSessionRequest& request) -> absl::Status {
        if (admit != nullptr) ATTIC_RETURN_IF_ERROR(admit(request));
        return Admit(request);
      },
      .make_room =
          [this](uint64_t bytes) {
            if (disk_ == nullptr) return;
            disk_->MakeRoom(bytes, absl::Now() + kImportRoomWait).IgnoreError();
          }};
  return std::make_unique<Sink>(std::move(slot), *this, std::move(import));
}

absl::StatusOr<SessionDescription> SessionStoreImpl::Publish(SessionImport::Imported imported) {
  imported.session->lease().SetPinned(imported.pinned);
  ATTIC_RETURN_IF_ERROR(Publish(imported.session, std::move(imported.hashes)));
  return DescribeCreated(*imported.session);
}

absl::StatusOr<AppendAck> SessionStoreImpl::Append(const AppendBatch& batch, absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(batch.session_id));
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
  ATTIC_ASSIGN_OR_RETURN(const AppendAck ack, WithRoom(session->attributes().tenant, [&] {
                           return layer->Append(batch, deadline);
                         }));
  layer->ScheduleBuilds(scheduler_);
  return ack;
}

absl::StatusOr<PreparedQuery> SessionStoreImpl::Prepare(const AttendItem& item) const {
  ATTIC_RETURN_IF_ERROR(ValidateRange(item.range));
  ATTIC_RETURN_IF_ERROR(ValidateSelection(item.selection, options_.limits));
  PreparedQuery prepared;
  ATTIC_ASSIGN_OR_RETURN(prepared.session, Use(item.session_id));
  ATTIC_RETURN_IF_ERROR(
      CheckHoldsTokens(item.session_id, prepared.session->attributes().placement));
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

absl::StatusOr<std::shared_ptr<const Placement>> SessionStoreImpl::PlacementOf(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(auto session, catalogue_.Find(session_id));
  const std::optional<Placement>& placement = session->attributes().placement;
  if (!placement.has_value()) return nullptr;
  return std::shared_ptr<const Placement>(std::move(session), &*placement);
}

absl::StatusOr<RowsDigest> SessionStoreImpl::DigestRows(const std::string& session_id,
                                                        absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  const std::shared_ptr<void> slot = row_readers_.Take();
  if (slot == nullptr) return NoSlot("row readers", kRowReadersMax);
  return attic::DigestRows(*session, deadline);
}

absl::StatusOr<std::unique_ptr<RowsSource>> SessionStoreImpl::ReadRows(
    const std::string& session_id, int64_t begin, int64_t end) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  std::shared_ptr<void> slot = row_readers_.Take();
  if (slot == nullptr) return NoSlot("row readers", kRowReadersMax);
  return attic::ReadRows(session, begin, end, std::move(slot));
}

StoreStatus SessionStoreImpl::Status() {
  StoreStatus status;
  status.version = kVersion;
  status.boot_id = boot_id_;
  status.threads = executor_.thread_count();
  status.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  status.vector_target = VectorTargetName();
  status.evicted_sessions = evicted_sessions_;
  status.memory_limit_bytes = budget_->bytes_max();
  status.memory_charged_bytes = budget_->used_bytes();
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
