#include "server/service/stream_registry.h"

namespace attic {

void StreamRegistry::Add(DrainableStream* stream) {
  MutexLock lock(mutex_);
  streams_.insert(stream);
  if (draining_) stream->Drain();
}

void StreamRegistry::Remove(DrainableStream* stream) {
  MutexLock lock(mutex_);
  streams_.erase(stream);
}

size_t StreamRegistry::size() {
  MutexLock lock(mutex_);
  return streams_.size();
}

void StreamRegistry::DrainAll() {
  // Under the lock, so that no stream goes away meanwhile. Draining never waits.
  MutexLock lock(mutex_);
  draining_ = true;
  for (DrainableStream* stream : streams_) stream->Drain();
}

}  // namespace attic
