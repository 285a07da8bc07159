// How busy and how quick a node is, as one client sees it: what reads choose a replica by.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_NODE_LOAD_H_
#define ATTIC_CLIENT_CPP_CLUSTER_NODE_LOAD_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic {

// Thread-safe. Times are the caller's clock.
class NodeLoad {
 public:
  enum class Outcome : uint8_t {
    kAnswered,
    kFailed,  // not to be asked for a while, if another can
    kLate,    // nobody waits for the answer any more: `latency` is the least it would have been
  };

  // A request of so many parts (shards) was sent, and every one that was has come to an end.
  void Started(size_t parts);
  void Finished(size_t parts, absl::Duration latency, Outcome outcome, absl::Time now);

  // Seconds that a request may take: what it took lately times what is in flight. What was seen is
  // forgotten within seconds, so that a node that was slow is tried again.
  double Score(size_t more_parts, absl::Time now) const;
  bool Failing(absl::Time now) const;
  // Of the latest answers; infinite before there are enough.
  absl::Duration P95() const;

 private:
  static constexpr size_t kSamples = 128;
  static constexpr size_t kSamplesMin = 16;

  mutable Mutex mutex_;
  size_t parts_in_flight_ ATTIC_GUARDED_BY(mutex_) = 0;
  double latency_seconds_ ATTIC_GUARDED_BY(mutex_) = 0;  // moving average
  absl::Time latency_seen_ ATTIC_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time failing_until_ ATTIC_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::array<float, kSamples> samples_ ATTIC_GUARDED_BY(mutex_);  // seconds, in a ring
  uint64_t sample_count_ ATTIC_GUARDED_BY(mutex_) = 0;
  double p95_seconds_ ATTIC_GUARDED_BY(mutex_) = 0;  // 0: not known yet
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_NODE_LOAD_H_
