#include "server/session/disk_sync.h"

#include <utility>

namespace attic {

DiskSync::DiskSync(std::shared_ptr<DurableStore> store, absl::Duration interval)
    : store_(std::move(store)), interval_(interval), thread_([this] { Run(); }) {}

DiskSync::~DiskSync() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void DiskSync::Notify() {
  {
    MutexLock lock(mutex_);
    if (written_) return;
    written_ = true;
  }
  changed_.NotifyAll();
}

void DiskSync::Run() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (!written_ && !stopping_) changed_.Wait(mutex_);
      if (!written_) return;
      written_ = false;
    }
    // A failed sync is tried again with the next write, or by who flushes.
    const absl::Status synced = store_->Sync();
    MutexLock lock(mutex_);
    if (!synced.ok() && !stopping_) written_ = true;
    if (!stopping_) changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(interval_));
  }
}

}  // namespace attic
