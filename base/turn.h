// One caller at a time, as a mutex lets through, where what is done takes a disk's time.
#ifndef ATTIC_BASE_TURN_H_
#define ATTIC_BASE_TURN_H_

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/mutex.h"

namespace attic {

// Nobody holds a lock while somebody has the turn; who waits gives up at a deadline. Thread-safe.
class Turn {
 public:
  // Gives the turn back when it goes. Movable.
  class Holder {
   public:
    Holder() = default;
    Holder(Holder&& other) noexcept : turn_(std::exchange(other.turn_, nullptr)) {}
    Holder& operator=(Holder&& other) noexcept {
      if (this != &other) {
        Give();
        turn_ = std::exchange(other.turn_, nullptr);
      }
      return *this;
    }
    ~Holder() { Give(); }

   private:
    friend class Turn;
    explicit Holder(Turn* turn) : turn_(turn) {}
    void Give() {
      if (turn_ != nullptr) turn_->Give();
      turn_ = nullptr;
    }
    Turn* turn_ = nullptr;
  };

  // DEADLINE_EXCEEDED when others have it until `deadline`.
  absl::StatusOr<Holder> Take(absl::Time deadline) {
    MutexLock lock(mutex_);
    while (taken_) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError(
            "others were changing the same layer until the deadline");
      }
      given_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, kWaitMax)));
    }
    taken_ = true;
    return Holder(this);
  }
  Holder Take() {
    MutexLock lock(mutex_);
    while (taken_) given_.Wait(mutex_);
    taken_ = true;
    return Holder(this);
  }

 private:
  static constexpr absl::Duration kWaitMax = absl::Seconds(1);  // a wait without end has no number

  void Give() {
    MutexLock lock(mutex_);
    ATTIC_CHECK(taken_);
    taken_ = false;
    given_.NotifyOne();
  }

  Mutex mutex_;
  CondVar given_;
  bool taken_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_BASE_TURN_H_
