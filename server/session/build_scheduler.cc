#include "server/session/build_scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace attic {

BuildScheduler::BuildScheduler(size_t threads, absl::Duration retry_delay)
    : retry_delay_(retry_delay) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

BuildScheduler::~BuildScheduler() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  work_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

void BuildScheduler::Schedule(const std::shared_ptr<BuildTarget>& target) {
  if (target->pending_segments() == 0) return;
  {
    MutexLock lock(mutex_);
    if (target->scheduled_ || absl::Now() < target->retry_after_) return;
    target->scheduled_ = true;
    queue_.push_back(target);
  }
  work_.NotifyOne();
}

void BuildScheduler::Run() {
  for (;;) {
    std::shared_ptr<BuildTarget> target;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) WaitForWork();
      if (stopping_) return;
      target = queue_.front().lock();
      queue_.pop_front();
      ++running_;
    }
    absl::StatusOr<bool> built = false;
    if (target != nullptr) built = target->BuildNext();
    if (target != nullptr) {
      MutexLock lock(mutex_);
      target->scheduled_ = false;
      if (!built.ok()) {
        last_error_ = built.status();
        target->retry_after_ = absl::Now() + retry_delay_;
        failed_.push_back(target);
      } else if (*built && target->pending_segments() > 0) {
        // To the back of the queue: every head gets its turn.
        target->scheduled_ = true;
        queue_.push_back(target);
      }
    }
    // Freed without the lock, and before the build counts as ended: who waits for builds may rely
    // on the memory of a closed session being back.
    target.reset();
    {
      MutexLock lock(mutex_);
      --running_;
      ++builds_;
    }
    built_.NotifyAll();
  }
}

void BuildScheduler::WaitForWork() {
  while (!failed_.empty()) {
    const std::shared_ptr<BuildTarget> target = failed_.front().lock();
    if (target != nullptr && absl::Now() < target->retry_after_) {
      work_.WaitFor(mutex_, absl::ToChronoNanoseconds(target->retry_after_ - absl::Now()));
      return;
    }
    failed_.pop_front();
    if (target == nullptr || target->scheduled_) continue;
    target->scheduled_ = true;
    queue_.push_back(target);
    return;
  }
  work_.Wait(mutex_);
}

bool BuildScheduler::WaitForBuild(absl::Time deadline) {
  // Bounded naps, because a wait without end cannot be expressed as a timeout.
  const uint64_t seen = builds_;
  while (builds_ == seen) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    built_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, absl::Seconds(1))));
  }
  return true;
}

absl::Status BuildScheduler::WaitForRoom(const std::function<bool()>& has_room,
                                         absl::Time deadline) {
  for (;;) {
    uint64_t seen;
    {
      MutexLock lock(mutex_);
      seen = builds_;
    }
    if (has_room()) return absl::OkStatus();
    MutexLock lock(mutex_);
    // A build that ended while has_room ran may have made the room.
    if (builds_ == seen && !WaitForBuild(deadline)) {
      return absl::DeadlineExceededError("pending_segments_max: segments wait to be built");
    }
  }
}

absl::Status BuildScheduler::WaitUntilIdle(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (!queue_.empty() || running_ > 0) {
    if (!WaitForBuild(deadline)) return absl::DeadlineExceededError("segments wait to be built");
  }
  return absl::OkStatus();
}

absl::Status BuildScheduler::last_error() const {
  MutexLock lock(mutex_);
  return last_error_;
}

}  // namespace attic
