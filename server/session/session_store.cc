#include "server/session/session_store.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention/vector_kernels.h"
#include "base/memory_budget.h"
#include "base/status_macros.h"
#include "server/session/build_scheduler.h"
#include "server/session/catalogue.h"
#include "server/session/eviction.h"
#include "server/session/periodic_thread.h"
#include "server/session/prefix_index.h"
#include "server/session/query_executor.h"
#include "server/session/random_id.h"
#include "server/session/session.h"
#include "server/session/tenant_budgets.h"
#include "server/session/validation.h"

namespace attic {
namespace {

constexpr char kVersion[] = "0.1.0";

size_t BuildThreads(size_t requested) {
  if (requested > 0) return requested;
  return std::max(1u, std::thread::hardware_concurrency() / 2);
}

absl::Status CheckDurability(Durability durability) {
  if (durability == Durability::kMemory) return absl::OkStatus();
  return absl::FailedPreconditionError("durability: this store has no data directory");
}

const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

class MemorySessionStore : public SessionStore {
 public:
  MemorySessionStore(const SessionStoreOptions& options, std::shared_ptr<ThreadPool> query_pool)
      : options_(options),
        boot_id_(RandomId()),
        start_(absl::Now()),
        budget_(std::make_shared<MemoryBudget>(options.limits.memory_bytes_max)),
        tenant_budgets_(budget_, options.limits.tenant_bytes_max),
        catalogue_(options.limits.sessions_max, options.limits.tenant_sessions_max),
        executor_(std::move(query_pool)),
        scheduler_(BuildThreads(options.build_threads)),
        sweeper_(options.sweep_interval, [this] { CloseEndedSessions(); }) {}

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
  size_t CloseEndedSessions() override;
  absl::Status WaitForBuilds(absl::Time deadline) override;

 private:
  // The session for a call that renews its lease.
  absl::StatusOr<std::shared_ptr<Session>> Use(const std::string& session_id) const;
  absl::StatusOr<std::shared_ptr<Session>> Create(const OpenSessionRequest& request);
  // A new session that starts with the longest prefix another one holds; null when there is none.
  // RESOURCE_EXHAUSTED when memory is short.
  absl::StatusOr<std::shared_ptr<Session>> ForkPrefix(const OpenSessionRequest& request);
  // Puts a new session where others find it.
  absl::Status Publish(const std::shared_ptr<Session>& session, std::vector<PrefixHash> hashes);
  // False when the session was closed already.
  bool Forget(const std::shared_ptr<Session>& session);
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

  const SessionStoreOptions options_;
  const std::string boot_id_;
  const absl::Time start_;
  const std::shared_ptr<MemoryBudget> budget_;
  TenantBudgets tenant_budgets_;
  PrefixIndex prefixes_;
  Catalogue catalogue_;
  std::atomic<uint64_t> evicted_sessions_{0};
  QueryExecutor executor_;
  // Last: builds stop before what they use goes away.
  BuildScheduler scheduler_;
  PeriodicThread sweeper_;
};

absl::StatusOr<SessionDescription> MemorySessionStore::OpenSession(
    const OpenSessionRequest& request) {
  ATTIC_RETURN_IF_ERROR(ValidateOpen(request, options_.limits));
  ATTIC_RETURN_IF_ERROR(CheckDurability(request.durability));
  OpenSessionRequest named = request;
  if (named.session_id.empty()) named.session_id = RandomId();
  // Two callers may create the same session at once: the loser finds the winner's.
  for (;;) {
    if (auto held = catalogue_.Find(named.session_id); held.ok()) {
      ATTIC_RETURN_IF_ERROR((*held)->CheckSame(named));
      if ((*held)->lease().Renew(options_.clock())) return Describe(**held);
      Forget(*held);  // as somebody is about to who ended its lease
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

absl::StatusOr<std::shared_ptr<Session>> MemorySessionStore::Create(
    const OpenSessionRequest& request) {
  if (request.reuse_prefix) {
    ATTIC_ASSIGN_OR_RETURN(auto fork, ForkPrefix(request));
    if (fork != nullptr) return fork;
  }
  return Session::Create(request, options_.index, tenant_budgets_.Of(request.tenant));
}

absl::StatusOr<std::shared_ptr<Session>> MemorySessionStore::ForkPrefix(
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
                             .reused_tokens = position});
    if (absl::IsResourceExhausted(fork.status())) return fork.status();
    // Truncated or closed in the meantime: the next best may still be there.
    if (fork.ok() && prefixes_.StillHolds(source, match.truncations)) return *std::move(fork);
  }
  return nullptr;
}

absl::Status MemorySessionStore::Publish(const std::shared_ptr<Session>& session,
                                         std::vector<PrefixHash> hashes) {
  session->lease().Renew(options_.clock());
  prefixes_.Add(session, std::move(hashes));
  const absl::Status added = catalogue_.Add(session);
  if (!added.ok()) {
    prefixes_.Remove(*session);
    return added;
  }
  for (const auto& layer : session->layers()) layer->ScheduleBuilds(scheduler_);
  return absl::OkStatus();
}

bool MemorySessionStore::Forget(const std::shared_ptr<Session>& session) {
  prefixes_.Remove(*session);
  return catalogue_.Remove(session);
}

absl::StatusOr<std::shared_ptr<Session>> MemorySessionStore::Use(
    const std::string& session_id) const {
  ATTIC_ASSIGN_OR_RETURN(auto session, catalogue_.Find(session_id));
  if (!session->lease().Renew(options_.clock())) return NoSuchSession(session_id);
  return session;
}

SessionDescription MemorySessionStore::Describe(const Session& session) const {
  SessionDescription description = session.Describe();
  description.lease_seconds_left = absl::ToDoubleSeconds(session.lease().left(options_.clock()));
  return description;
}

SessionDescription MemorySessionStore::DescribeCreated(const Session& session) const {
  SessionDescription description = Describe(session);
  description.created = true;
  return description;
}

bool MemorySessionStore::MakeRoom(const absl::Status& error, const std::string& tenant) {
  const Shortage shortage = ShortageOf(error);
  if (shortage == Shortage::kNone) return false;
  const auto victim = ChooseVictim(
      catalogue_.All(), shortage == Shortage::kOfTenant ? &tenant : nullptr, options_.clock());
  if (victim == nullptr) return false;
  if (Forget(victim)) ++evicted_sessions_;
  return true;
}

size_t MemorySessionStore::CloseEndedSessions() {
  size_t closed = 0;
  for (const auto& session : EndLeases(catalogue_.All(), options_.clock())) {
    if (Forget(session)) ++closed;
  }
  evicted_sessions_ += closed;
  return closed;
}

absl::StatusOr<SessionDescription> MemorySessionStore::DescribeSession(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return Describe(*session);
}

absl::StatusOr<std::vector<HeadPlan>> MemorySessionStore::PlanSession(
    const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return session->Plan();
}

std::vector<SessionDescription> MemorySessionStore::ListSessions(
    const std::string& after_session_id, size_t page_size) {
  std::vector<SessionDescription> descriptions;
  for (const auto& session : catalogue_.After(after_session_id, page_size)) {
    descriptions.push_back(Describe(*session));
  }
  return descriptions;
}

absl::StatusOr<SessionDescription> MemorySessionStore::ForkSession(const std::string& session_id,
                                                                   const ForkOptions& options) {
  if (options.position < 0) return absl::InvalidArgumentError("position: must not be negative");
  const std::string new_id = options.new_session_id.empty() ? RandomId() : options.new_session_id;
  ATTIC_RETURN_IF_ERROR(ValidateSessionId(new_id, "new_session_id", options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
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

absl::StatusOr<SessionDescription> MemorySessionStore::TruncateSession(
    const std::string& session_id, int64_t position) {
  if (position < 0) return absl::InvalidArgumentError("position: must not be negative");
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  const std::vector<PrefixHash> hashes = prefixes_.Registered(*session).hashes;
  prefixes_.Truncate(*session, position);
  if (const absl::Status truncated = session->Truncate(position); !truncated.ok()) {
    prefixes_.Extend(*session, 0, hashes).IgnoreError();  // nothing was forgotten
    return truncated;
  }
  for (const auto& layer : session->layers()) layer->ScheduleBuilds(scheduler_);
  return Describe(*session);
}

absl::StatusOr<SessionDescription> MemorySessionStore::FlushSession(const std::string& session_id,
                                                                    absl::Time) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  return absl::FailedPreconditionError("session_id: the session is in memory");
}

absl::StatusOr<SessionDescription> MemorySessionStore::ExtendPrefix(
    const std::string& session_id, uint32_t first_block, std::span<const PrefixHash> hashes) {
  ATTIC_RETURN_IF_ERROR(ValidatePrefix(first_block, hashes.size(), options_.limits));
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  ATTIC_RETURN_IF_ERROR(prefixes_.Extend(*session, first_block, hashes));
  return Describe(*session);
}

absl::StatusOr<SessionDescription> MemorySessionStore::RenewLease(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(session_id));
  return Describe(*session);
}

absl::StatusOr<SessionDescription> MemorySessionStore::PinSession(const std::string& session_id,
                                                                  bool pinned) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  if (!session->lease().SetPinned(pinned)) return NoSuchSession(session_id);
  return Describe(*session);
}

absl::Status MemorySessionStore::CloseSession(const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, catalogue_.Find(session_id));
  return Forget(session) ? absl::OkStatus() : NoSuchSession(session_id);
}

absl::StatusOr<AppendAck> MemorySessionStore::Append(const AppendBatch& batch,
                                                     absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto session, Use(batch.session_id));
  ATTIC_ASSIGN_OR_RETURN(StoredLayer* const layer, session->FindLayer(batch.layer));
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
  ATTIC_ASSIGN_OR_RETURN(const int64_t watermark, WithRoom(session->attributes().tenant,
                                                           [&] { return layer->Append(batch); }));
  layer->ScheduleBuilds(scheduler_);
  return AppendAck{.watermark = watermark};
}

absl::StatusOr<PreparedQuery> MemorySessionStore::Prepare(const AttendItem& item) const {
  ATTIC_RETURN_IF_ERROR(ValidateRange(item.range));
  ATTIC_RETURN_IF_ERROR(ValidateSelection(item.selection, options_.limits));
  PreparedQuery prepared;
  ATTIC_ASSIGN_OR_RETURN(prepared.session, Use(item.session_id));
  ATTIC_ASSIGN_OR_RETURN(const StoredLayer* stored, prepared.session->FindLayer(item.layer));
  ATTIC_RETURN_IF_ERROR(ValidateQueries(item.queries, prepared.session->fingerprint()));
  prepared.layer = stored->Snapshot();
  if (prepared.layer.watermark < item.min_watermark) {
    return absl::FailedPreconditionError(absl::StrCat("min_watermark: ", item.min_watermark,
                                                      " asked for, the layer's watermark is ",
                                                      prepared.layer.watermark));
  }
  prepared.range.end = std::min(item.range.end, prepared.layer.watermark);
  prepared.range.begin = std::min(item.range.begin, prepared.range.end);
  prepared.mode = item.mode;
  if (item.mode != AttendMode::kExact) prepared.selection = item.selection;
  prepared.queries = item.queries;
  return prepared;
}

absl::StatusOr<std::vector<AttendAnswer>> MemorySessionStore::Attend(
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

absl::StatusOr<SearchAnswer> MemorySessionStore::Search(const SearchRequest& request,
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

StoreStatus MemorySessionStore::Status() {
  StoreStatus status;
  status.version = kVersion;
  status.boot_id = boot_id_;
  status.threads = executor_.thread_count();
  status.uptime_seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  status.vector_target = VectorTargetName();
  status.evicted_sessions = evicted_sessions_;
  for (const auto& session : catalogue_.All()) {
    ++status.sessions;
    for (const auto& layer : session->layers()) {
      status.tokens += static_cast<uint64_t>(layer->watermark());
      status.pending_segments += static_cast<uint64_t>(layer->pending_segments());
      status.memory += layer->memory_use();
    }
  }
  return status;
}

absl::Status MemorySessionStore::WaitForBuilds(absl::Time deadline) {
  ATTIC_RETURN_IF_ERROR(scheduler_.WaitUntilIdle(deadline));
  // What still waits failed to build.
  if (Status().pending_segments > 0) return scheduler_.last_error();
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<SessionStore> SessionStore::Create(const SessionStoreOptions& options,
                                                   std::shared_ptr<ThreadPool> query_pool) {
  if (query_pool == nullptr) {
    query_pool = std::make_shared<ThreadPool>(options.threads, ThreadPool::Placement::kOnePerCpu);
  }
  return std::make_unique<MemorySessionStore>(options, std::move(query_pool));
}

}  // namespace attic
