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

// Thread-safe.
class Catalogue {
 public:
  explicit Catalogue(size_t sessions_max) : sessions_max_(sessions_max) {}

  // NOT_FOUND.
  absl::StatusOr<std::shared_ptr<Session>> Find(const std::string& session_id) const;
  bool Contains(const std::string& session_id) const;

  // RESOURCE_EXHAUSTED naming sessions_max when no session can be added.
  absl::Status CheckRoom() const;
  // ALREADY_EXISTS when the id is taken; RESOURCE_EXHAUSTED like CheckRoom.
  absl::Status Add(std::shared_ptr<Session> session);
  // NOT_FOUND.
  absl::Status Remove(const std::string& session_id);

  // At most `count` sessions with ids after `session_id`, in order of id.
  std::vector<std::shared_ptr<Session>> After(const std::string& session_id, size_t count) const;
  std::vector<std::shared_ptr<Session>> All() const;

 private:
  absl::Status CheckRoomLocked() const ATTIC_REQUIRES(mutex_);

  const size_t sessions_max_;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Session>> sessions_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_CATALOGUE_H_
