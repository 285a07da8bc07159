// Background threads that turn tails into segments.
#ifndef ATTIC_SERVER_SESSION_BUILD_SCHEDULER_H_
#define ATTIC_SERVER_SESSION_BUILD_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic {

// Something that has segments to build: one kv head of one layer.
class BuildTarget {
 public:
  virtual ~BuildTarget() = default;
  // Builds one segment; false when there was nothing to do. Called by one thread at a time.
  virtual absl::StatusOr<bool> BuildNext() = 0;
  virtual int64_t pending_segments() const = 0;

 private:
  friend class BuildScheduler;
  // Both guarded by the mutex of the scheduler.
  bool scheduled_ = false;  // in the queue, or being built
  absl::Time retry_after_ = absl::InfinitePast();
};

// Builds one segment of each waiting target in turn, so that a head with much to do does not hold
// up the others. A target whose build fails is tried again after `retry_delay`. Thread-safe.
class BuildScheduler {
 public:
  explicit BuildScheduler(size_t threads, absl::Duration retry_delay = absl::Seconds(1));
  // Finishes the builds that are running and forgets those that wait.
  ~BuildScheduler();
  BuildScheduler(const BuildScheduler&) = delete;
  BuildScheduler& operator=(const BuildScheduler&) = delete;

  // Queues the target when it has pending segments and is not queued already. A target nobody else
  // holds any more is skipped.
  void Schedule(const std::shared_ptr<BuildTarget>& target);

  // Waits until has_room(), which is asked again after every build; DEADLINE_EXCEEDED after
  // `deadline`. No lock is held while has_room runs.
  absl::Status WaitForRoom(const std::function<bool()>& has_room, absl::Time deadline);

  // Waits until no target is queued or being built; DEADLINE_EXCEEDED after `deadline`.
  absl::Status WaitUntilIdle(absl::Time deadline);

  // Of the latest failed build; OK when none failed.
  absl::Status last_error() const;

 private:
  void Run();
  // Queues targets whose retry is due, and waits for work.
  void WaitForWork() ATTIC_REQUIRES(mutex_);
  // Waits for the next build to end; false when `deadline` passed.
  bool WaitForBuild(absl::Time deadline) ATTIC_REQUIRES(mutex_);

  const absl::Duration retry_delay_;
  mutable Mutex mutex_;
  CondVar work_;
  CondVar built_;
  std::deque<std::weak_ptr<BuildTarget>> queue_ ATTIC_GUARDED_BY(mutex_);
  std::deque<std::weak_ptr<BuildTarget>> failed_ ATTIC_GUARDED_BY(mutex_);  // next retry first
  size_t running_ ATTIC_GUARDED_BY(mutex_) = 0;
  uint64_t builds_ ATTIC_GUARDED_BY(mutex_) = 0;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  absl::Status last_error_ ATTIC_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_BUILD_SCHEDULER_H_
