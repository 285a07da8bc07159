// The sessions of a store by id.
#ifndef ATTIC_SERVER_SESSION_CATALOGUE_H_
#define ATTIC_SERVER_SESSION_CATALOGUE_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/session/session.h"

namespace attic {

// NOT_FOUND, as the store says it of every session that is not there.
absl::Status NoSuchSession(const std::string& session_id);

// Thread-safe.
class Catalogue {
 public:
  // tenant_sessions_max 0: tenants have no limit of their own.
  Catalogue(size_t sessions_max, size_t tenant_sessions_max)
      : sessions_max_(sessions_max), tenant_sessions_max_(tenant_sessions_max) {}

  // NOT_FOUND.
  absl::StatusOr<std::shared_ptr<Session>> Find(const std::string& session_id) const;
  bool Contains(const std::string& session_id) const;

  // RESOURCE_EXHAUSTED naming sessions_max or tenant_sessions_max when no session of the tenant can
  // be added.
  absl::Status CheckRoom(const std::string& tenant) const;
  // ALREADY_EXISTS when the id is taken; RESOURCE_EXHAUSTED like CheckRoom.
  absl::Status Add(std::shared_ptr<Session> session);
  // False when it is not there, or another one of its id is.
  bool Remove(const std::shared_ptr<Session>& session);

  // At most `count` sessions with ids after `session_id`, in order of id.
  std::vector<std::shared_ptr<Session>> After(const std::string& session_id, size_t count) const;
  std::vector<std::shared_ptr<Session>> All() const;

 private:
  absl::Status CheckRoomLocked(const std::string& tenant) const ATTIC_REQUIRES(mutex_);

  const size_t sessions_max_;
  const size_t tenant_sessions_max_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Session>> sessions_ ATTIC_GUARDED_BY(mutex_);
  std::map<std::string, size_t> tenant_sessions_ ATTIC_GUARDED_BY(mutex_);  // how many, from 1
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_CATALOGUE_H_
