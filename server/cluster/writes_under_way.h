// Which writes a node has let in and not yet applied.
#ifndef ATTIC_SERVER_CLUSTER_WRITES_UNDER_WAY_H_
#define ATTIC_SERVER_CLUSTER_WRITES_UNDER_WAY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "base/mutex.h"

namespace attic {

// Writes by the epoch of the map that let them in. Who saw a newer map, and then none of an older
// one here, knows that all of those are applied, and that none will come: a write says that it
// begins before it looks whether its map is still the newest. Thread-safe.
class WritesUnderWay {
 public:
  // A write let in by the map of `epoch`, until the last copy of the result is gone. Must not
  // outlive this.
  std::shared_ptr<const void> Begin(uint64_t epoch);

  // Whether there is one let in by a map before that of `epoch`.
  bool AnyBefore(uint64_t epoch) const;

 private:
  void End(uint64_t epoch);

  mutable Mutex mutex_;
  std::map<uint64_t, size_t> writes_ ATTIC_GUARDED_BY(mutex_);  // by epoch; none of 0
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_WRITES_UNDER_WAY_H_
