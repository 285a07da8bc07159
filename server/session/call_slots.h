// A limit on how many calls of a kind run at a time.
#ifndef ATTIC_SERVER_SESSION_CALL_SLOTS_H_
#define ATTIC_SERVER_SESSION_CALL_SLOTS_H_

#include <atomic>
#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace attic {

// Thread-safe.
class CallSlots {
 public:
  // `what` is a literal: it names in errors what is limited.
  CallSlots(const char* what, size_t count_max) : what_(what), count_max_(count_max) {}

  // Held until the result is gone, which must be before this goes. RESOURCE_EXHAUSTED when all are.
  absl::StatusOr<std::shared_ptr<void>> Take() {
    if (taken_.fetch_add(1) < count_max_) {
      return std::shared_ptr<void>(this, [this](void*) { taken_.fetch_sub(1); });
    }
    taken_.fetch_sub(1);
    return absl::ResourceExhaustedError(
        absl::StrCat(what_, ": ", count_max_, " are being written or read"));
  }

 private:
  const char* const what_;
  const size_t count_max_;
  std::atomic<size_t> taken_{0};
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_CALL_SLOTS_H_
