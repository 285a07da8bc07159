// The sessions of a store: how they come to be found, change, and go.
#ifndef ATTIC_SERVER_SESSION_LIVE_SESSIONS_H_
#define ATTIC_SERVER_SESSION_LIVE_SESSIONS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "api/types.h"
#include "server/session/build_scheduler.h"
#include "server/session/catalogue.h"
#include "server/session/prefix_index.h"
#include "server/session/session.h"

namespace attic {

// Keeps the catalogue, the index of prefixes and what the disk records of a session in step, and
// gives up sessions whose lease has ended. Thread-safe; holds no lock of its own while it calls.
class LiveSessions {
 public:
  // Segments of sessions are queued at `scheduler`, which must outlive every call.
  LiveSessions(const Limits& limits, std::function<absl::Time()> clock, BuildScheduler& scheduler)
      : catalogue_(limits.sessions_max, limits.tenant_sessions_max),
        clock_(std::move(clock)),
        scheduler_(scheduler) {}

  // For reading, and for StoreDisk, which puts sessions there before they are taken up.
  Catalogue& catalogue() { return catalogue_; }

  // NOT_FOUND.
  absl::StatusOr<std::shared_ptr<Session>> Find(const std::string& session_id) const {
    return catalogue_.Find(session_id);
  }
  // The same for a call that renews the lease.
  absl::StatusOr<std::shared_ptr<Session>> Use(const std::string& session_id) const;
  // The session of that id, its lease renewed; null when there is none, or its lease has ended:
  // then it is gone. FAILED_PRECONDITION when it is another one than the request asks for.
  absl::StatusOr<std::shared_ptr<Session>> FindSame(const OpenSessionRequest& request);
  SessionDescription Describe(const Session& session) const;

  // A new session that starts with the longest prefix another one holds, not published; null when
  // there is none. RESOURCE_EXHAUSTED when memory is short.
  absl::StatusOr<std::shared_ptr<Session>> ForkPrefix(const OpenSessionRequest& request);
  // A published fork of [0, position). Errors of Session::Fork and of Publish.
  absl::StatusOr<std::shared_ptr<Session>> Fork(Session& session, int64_t position,
                                                const std::string& new_id,
                                                const SessionAttributes& attributes);
  // Puts a new session where others find it, its lease begun; `hashes` are those of its first
  // blocks. Forgets it on error: ALREADY_EXISTS, RESOURCE_EXHAUSTED, errors of the disk.
  absl::Status Publish(const std::shared_ptr<Session>& session, std::vector<PrefixHash> hashes);
  // The same for a session that was read from disk and is in the catalogue.
  void TakeUp(const std::shared_ptr<Session>& session);

  // Forgets positions >= position, and the hashes of what is gone. On error nothing was forgotten.
  absl::Status Truncate(Session& session, int64_t position);
  // See SessionStore::ExtendPrefix.
  absl::Status ExtendPrefix(Session& session, uint32_t first_block,
                            std::span<const PrefixHash> hashes);
  // NOT_FOUND when its lease has ended; errors of the disk.
  absl::Status SetPinned(Session& session, bool pinned);
  // The hashes of the session's blocks, from the first on.
  std::vector<PrefixHash> Hashes(const Session& session) const {
    return prefixes_.Registered(session).hashes;
  }

  // Closes a session. False when it was closed already; errors of the disk.
  absl::StatusOr<bool> Forget(const std::shared_ptr<Session>& session);
  // Closes the sessions in memory whose lease has ended, and returns how many.
  size_t CloseEnded();
  // How many were closed because their lease had ended.
  uint64_t evicted() const { return evicted_; }

  // What call() returns, a Status or a StatusOr, called again for as long as it says that memory or
  // sessions are short and a session could be closed whose lease has ended.
  template <typename Call>
  auto WithRoom(const std::string& tenant, const Call& call) {
    auto result = call();
    while (!result.ok() && MakeRoom(StatusOf(result), tenant)) result = call();
    return result;
  }
  // OK when there is room for one more session of the tenant, or room could be made.
  absl::Status RoomForSession(const std::string& tenant) {
    return WithRoom(tenant, [&] { return catalogue_.CheckRoom(tenant); });
  }

 private:
  static const absl::Status& StatusOf(const absl::Status& status) { return status; }
  template <typename T>
  static const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
    return result.status();
  }

  // Closes a session whose lease has ended if that may help against `error`; false when there is
  // none.
  bool MakeRoom(const absl::Status& error, const std::string& tenant);
  // Records what changed beside the tokens.
  absl::Status Save(Session& session) const {
    return session.Save([&] { return Hashes(session); });
  }
  void ScheduleBuilds(const Session& session) const;

  PrefixIndex prefixes_;
  Catalogue catalogue_;
  std::atomic<uint64_t> evicted_{0};
  const std::function<absl::Time()> clock_;
  BuildScheduler& scheduler_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_LIVE_SESSIONS_H_
