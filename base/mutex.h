// std::mutex with clang's thread-safety annotations. std::mutex, not absl::Mutex: the thread
// sanitizer does not see through the packaged Abseil, which is not instrumented.
#ifndef ATTIC_BASE_MUTEX_H_
#define ATTIC_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define ATTIC_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define ATTIC_THREAD_ANNOTATION(x)
#endif

#define ATTIC_GUARDED_BY(x) ATTIC_THREAD_ANNOTATION(guarded_by(x))
#define ATTIC_REQUIRES(x) ATTIC_THREAD_ANNOTATION(requires_capability(x))
#define ATTIC_EXCLUDES(x) ATTIC_THREAD_ANNOTATION(locks_excluded(x))

namespace attic {

class ATTIC_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ATTIC_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void Unlock() ATTIC_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds the mutex for its lifetime.
class ATTIC_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ATTIC_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() ATTIC_THREAD_ANNOTATION(release_capability()) { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Condition variable for Mutex. Wait in a loop: wake-ups may be spurious.
class CondVar {
 public:
  void Wait(Mutex& mutex) ATTIC_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when `timeout` passed without a notification.
  bool WaitFor(Mutex& mutex, std::chrono::nanoseconds timeout) ATTIC_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool notified = condition_.wait_for(lock, timeout) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace attic

#endif  // ATTIC_BASE_MUTEX_H_
