#include "server/session/live_sessions.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "server/session/eviction.h"

namespace attic {

absl::StatusOr<std::shared_ptr<Session>> LiveSessions::Use(const std::string& session_id) const {
  ATTIC_ASSIGN_OR_RETURN(auto session, catalogue_.Find(session_id));
  if (!session->lease().Renew(clock_())) return NoSuchSession(session_id);
  return session;
}

absl::StatusOr<std::shared_ptr<Session>> LiveSessions::FindSame(const OpenSessionRequest& request) {
  auto held = catalogue_.Find(request.session_id);
  if (!held.ok()) return nullptr;
  ATTIC_RETURN_IF_ERROR((*held)->CheckSame(request));
  if ((*held)->lease().Renew(clock_())) return held;
  // As somebody is about to who ended its lease.
  ATTIC_RETURN_IF_ERROR(Forget(*held).status());
  return nullptr;
}

SessionDescription LiveSessions::Describe(const Session& session) const {
  SessionDescription description = session.Describe();
  description.lease_seconds_left = absl::ToDoubleSeconds(session.lease().left(clock_()));
  return description;
}

absl::StatusOr<std::shared_ptr<Session>> LiveSessions::ForkPrefix(
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
    if (!source.lease().Renew(clock_())) continue;
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

absl::StatusOr<std::shared_ptr<Session>> LiveSessions::Fork(Session& session, int64_t position,
                                                            const std::string& new_id,
                                                            const SessionAttributes& attributes) {
  RegisteredPrefix prefix = prefixes_.Registered(session);
  ATTIC_ASSIGN_OR_RETURN(auto fork, WithRoom(session.attributes().tenant, [&] {
                           return session.Fork(position, new_id, attributes);
                         }));
  const size_t blocks = static_cast<size_t>(position) / kPrefixBlockTokens;
  prefix.hashes.resize(std::min(prefix.hashes.size(), blocks));
  // Truncated in the meantime, the fork may hold other tokens than these.
  if (!prefixes_.StillHolds(session, prefix.truncations)) prefix.hashes.clear();
  ATTIC_RETURN_IF_ERROR(Publish(fork, std::move(prefix.hashes)));
  return fork;
}

absl::Status LiveSessions::Publish(const std::shared_ptr<Session>& session,
                                   std::vector<PrefixHash> hashes) {
  session->lease().Renew(clock_());
  const bool save = !hashes.empty() || session->lease().pinned();
  prefixes_.Add(session, std::move(hashes));
  absl::Status published = save ? Save(*session) : absl::OkStatus();
  if (published.ok()) published = catalogue_.Add(session);
  if (!published.ok()) {
    prefixes_.Remove(*session);
    ATTIC_RETURN_IF_ERROR(session->RemoveFromDisk());
    return published;
  }
  ScheduleBuilds(*session);
  return absl::OkStatus();
}

void LiveSessions::TakeUp(const std::shared_ptr<Session>& session) {
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
  if (session->state() == Session::State::kServing) ScheduleBuilds(*session);
}

absl::Status LiveSessions::Truncate(Session& session, int64_t position) {
  const std::vector<PrefixHash> hashes = Hashes(session);
  prefixes_.Truncate(session, position);
  // Recorded first, so that a crash leaves no hash of what is gone.
  const bool cut = hashes.size() > static_cast<size_t>(position) / kPrefixBlockTokens;
  absl::Status truncated = cut ? Save(session) : absl::OkStatus();
  if (truncated.ok()) truncated = session.Truncate(position);
  if (!truncated.ok()) {
    // Nothing was forgotten. A hash that is not recorded again is one less to be found by.
    if (cut && prefixes_.Extend(session, 0, hashes).ok()) Save(session).IgnoreError();
    return truncated;
  }
  ScheduleBuilds(session);
  return absl::OkStatus();
}

absl::Status LiveSessions::ExtendPrefix(Session& session, uint32_t first_block,
                                        std::span<const PrefixHash> hashes) {
  ATTIC_RETURN_IF_ERROR(session.CheckChangeable());
  ATTIC_RETURN_IF_ERROR(prefixes_.Extend(session, first_block, hashes));
  return Save(session);
}

absl::Status LiveSessions::SetPinned(Session& session, bool pinned) {
  ATTIC_RETURN_IF_ERROR(session.CheckChangeable());
  if (!session.lease().SetPinned(pinned)) return NoSuchSession(session.id());
  return Save(session);
}

absl::StatusOr<bool> LiveSessions::Forget(const std::shared_ptr<Session>& session) {
  ATTIC_RETURN_IF_ERROR(session->RemoveFromDisk());
  const bool removed = catalogue_.Remove(session);
  prefixes_.Remove(*session);
  return removed;
}

size_t LiveSessions::CloseEnded() {
  size_t closed = 0;
  for (const auto& session : EndLeases(catalogue_.All(), clock_())) {
    if (Forget(session).value_or(false)) ++closed;
  }
  evicted_ += closed;
  return closed;
}

bool LiveSessions::MakeRoom(const absl::Status& error, const std::string& tenant) {
  const Shortage shortage = ShortageOf(error);
  if (shortage == Shortage::kNone) return false;
  const auto victim =
      ChooseVictim(catalogue_.All(), shortage == Shortage::kOfTenant ? &tenant : nullptr, clock_());
  if (victim == nullptr) return false;
  const absl::StatusOr<bool> forgotten = Forget(victim);
  if (!forgotten.ok()) return false;
  if (*forgotten) ++evicted_;
  return true;
}

void LiveSessions::ScheduleBuilds(const Session& session) const {
  for (const auto& layer : session.layers()) layer->ScheduleBuilds(scheduler_);
}

}  // namespace attic
