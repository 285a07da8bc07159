// The streams that are open, so that a store that stops can end them in good order.
#ifndef ATTIC_SERVER_SERVICE_STREAM_REGISTRY_H_
#define ATTIC_SERVER_SERVICE_STREAM_REGISTRY_H_

#include <cstddef>
#include <set>

#include "base/mutex.h"

namespace attic {

class DrainableStream {
 public:
  virtual ~DrainableStream() = default;
  // Reads nothing more, answers what was read, then ends with UNAVAILABLE.
  virtual void Drain() = 0;
};

// Thread-safe.
class StreamRegistry {
 public:
  // Streams added after DrainAll are drained at once.
  void Add(DrainableStream* stream);
  void Remove(DrainableStream* stream);
  void DrainAll();
  size_t size();

 private:
  Mutex mutex_;
  std::set<DrainableStream*> streams_ ATTIC_GUARDED_BY(mutex_);
  bool draining_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_STREAM_REGISTRY_H_
