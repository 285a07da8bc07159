// Queries of the sessions of a store: checked, answered, put together.
#ifndef ATTIC_SERVER_SESSION_STORE_QUERIES_H_
#define ATTIC_SERVER_SESSION_STORE_QUERIES_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "api/types.h"
#include "base/thread_pool.h"
#include "server/session/live_sessions.h"
#include "server/session/query_executor.h"

namespace attic {

// Thread-safe. Queries renew the lease of what they ask.
class StoreQueries {
 public:
  // Answers carry `boot_id`. Borrows `sessions`; queries run on `pool`.
  StoreQueries(const Limits& limits, std::string boot_id, const LiveSessions& sessions,
               std::shared_ptr<ThreadPool> pool)
      : limits_(limits),
        boot_id_(std::move(boot_id)),
        sessions_(sessions),
        executor_(std::move(pool)) {}

  // See SessionStore.
  absl::StatusOr<std::vector<AttendAnswer>> Attend(std::span<const AttendItem> items,
                                                   absl::Time deadline);
  absl::StatusOr<SearchAnswer> Search(const SearchRequest& request, absl::Time deadline);

  size_t thread_count() const { return executor_.thread_count(); }

 private:
  absl::StatusOr<PreparedQuery> Prepare(const AttendItem& item) const;

  const Limits limits_;
  const std::string boot_id_;
  const LiveSessions& sessions_;
  QueryExecutor executor_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_STORE_QUERIES_H_
