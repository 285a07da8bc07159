// Runs attention and search over snapshots, kv heads and items in parallel.
#ifndef ATTIC_SERVER_SESSION_QUERY_EXECUTOR_H_
#define ATTIC_SERVER_SESSION_QUERY_EXECUTOR_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "base/mutex.h"
#include "base/thread_pool.h"
#include "server/index/head_index.h"
#include "server/session/session.h"
#include "server/session/stored_layer.h"

namespace attic {

// A validated question to one layer. The snapshot keeps alive what is read; `queries` is borrowed.
struct PreparedQuery {
  std::shared_ptr<const Session> session;
  LayerSnapshot layer;
  PositionRange range;  // within [0, layer.watermark]
  AttendMode mode = AttendMode::kIndexed;
  SelectionPolicy selection;       // the default with kExact
  std::span<const float> queries;  // (q_heads, head_dim)
};

// Thread-safe.
class QueryExecutor {
 public:
  // Calls may come from the pool's own threads, which then share the work among them.
  explicit QueryExecutor(std::shared_ptr<ThreadPool> pool) : pool_(std::move(pool)) {}

  size_t thread_count() const { return pool_->thread_count(); }

  // Fills output, log_sum_exp, coverage, estimated_error, range, degraded and read of *answers[i]
  // for queries[i]; or its status, when vectors on disk could not be read.
  void Attend(std::span<const PreparedQuery> queries, absl::Time deadline,
              std::span<AttendAnswer* const> answers);

  // Hits, vectors when asked for, and read. k >= 1. UNAVAILABLE or DATA_LOSS when vectors on disk
  // could not be read.
  absl::StatusOr<SearchAnswer> Search(const PreparedQuery& query, size_t k, bool with_vectors);

 private:
  struct Scratch {
    explicit Scratch(ThreadPool& pool) : search(MakeSearchScratch(&pool)) {}
    SearchScratchPtr search;
    HeadAnswer answer;
  };
  // Takes a scratch from the free list for the lifetime of the object.
  class ScratchLease;

  // Runs body over [0, count) on the pool, or in the caller when `tokens` of work are too few to be
  // worth waking a thread.
  void Run(size_t count, int64_t tokens, const std::function<void(size_t)>& body);

  Mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_ ATTIC_GUARDED_BY(mutex_);
  const std::shared_ptr<ThreadPool> pool_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_QUERY_EXECUTOR_H_
