#include "server/session/catalogue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {

absl::Status NoSuchSession(const std::string& session_id) {
  return absl::NotFoundError(absl::StrCat("session_id: no session ", session_id));
}

absl::StatusOr<std::shared_ptr<Session>> Catalogue::Find(const std::string& session_id) const {
  MutexLock lock(mutex_);
  const auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return NoSuchSession(session_id);
  return found->second;
}

bool Catalogue::Contains(const std::string& session_id) const {
  MutexLock lock(mutex_);
  return sessions_.count(session_id) > 0;
}

absl::Status Catalogue::CheckRoom(const std::string& tenant) const {
  MutexLock lock(mutex_);
  return CheckRoomLocked(tenant);
}

absl::Status Catalogue::CheckRoomLocked(const std::string& tenant) const {
  if (sessions_.size() >= sessions_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("sessions_max: ", sessions_max_, " sessions are open"));
  }
  const auto held = tenant_sessions_.find(tenant);
  if (tenant_sessions_max_ > 0 && held != tenant_sessions_.end() &&
      held->second >= tenant_sessions_max_) {
    return absl::ResourceExhaustedError(absl::StrCat("tenant_sessions_max: ", tenant_sessions_max_,
                                                     " sessions of tenant ", tenant, " are open"));
  }
  return absl::OkStatus();
}

absl::Status Catalogue::Add(std::shared_ptr<Session> session) {
  MutexLock lock(mutex_);
  if (sessions_.count(session->id()) > 0) {
    return absl::AlreadyExistsError(absl::StrCat("session_id: ", session->id(), " is taken"));
  }
  const std::string& tenant = session->attributes().tenant;
  ATTIC_RETURN_IF_ERROR(CheckRoomLocked(tenant));
  ++tenant_sessions_[tenant];
  std::string id = session->id();
  sessions_.emplace(std::move(id), std::move(session));
  return absl::OkStatus();
}

bool Catalogue::Remove(const std::shared_ptr<Session>& session) {
  MutexLock lock(mutex_);
  const auto found = sessions_.find(session->id());
  if (found == sessions_.end() || found->second != session) return false;
  sessions_.erase(found);
  const auto held = tenant_sessions_.find(session->attributes().tenant);
  if (--held->second == 0) tenant_sessions_.erase(held);
  return true;
}

std::vector<std::shared_ptr<Session>> Catalogue::After(const std::string& session_id,
                                                       size_t count) const {
  std::vector<std::shared_ptr<Session>> sessions;
  MutexLock lock(mutex_);
  auto next = sessions_.upper_bound(session_id);
  for (; next != sessions_.end() && sessions.size() < count; ++next) {
    sessions.push_back(next->second);
  }
  return sessions;
}

std::vector<std::shared_ptr<Session>> Catalogue::All() const {
  std::vector<std::shared_ptr<Session>> sessions;
  MutexLock lock(mutex_);
  for (const auto& [id, session] : sessions_) sessions.push_back(session);
  return sessions;
}

}  // namespace attic
