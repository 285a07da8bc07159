// Keeps repair and the callers of a node from changing a shard at cross purposes.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_SHARD_CHANGES_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_SHARD_CHANGES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace attic {

// A caller truncates or closes a shard on all its replicas, one a moment before the other. Repair
// that read rows from a replica not yet truncated and appended them to one that is would bring back
// what was truncated; the same with a close and an import. So whoever truncates or closes a shard
// for a caller holds a Change meanwhile, also when the shard is not held here; repair gives up what
// it was doing with it, and leaves it alone for a while: until the other replicas were told.
//
// Thread-safe.
class ShardChanges {
 public:
  // Shards changed less than `settle` ago are left alone.
  ShardChanges(absl::Duration settle, std::function<absl::Time()> clock);

  // Waits for a step of repair on one of the shards to end; none begins while this lives.
  class Change {
   public:
    Change(ShardChanges& changes, std::vector<std::string> session_ids);
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

   private:
    ShardChanges& changes_;
    const std::vector<std::string> session_ids_;
  };

  // Repair of one shard, by one thread at a time.
  class Watch {
   public:
    Watch(ShardChanges& changes, std::string session_id);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    // ABORTED when the shard was changed since the construction, or shortly before it.
    absl::Status Check() const;
    // What step() returns, unless the shard was changed: as Check. No change begins meanwhile, so
    // steps must be short.
    absl::Status Apply(const std::function<absl::Status()>& step);

   private:
    ShardChanges& changes_;
    const std::string session_id_;
    bool settled_ = true;
    uint64_t begin_ = 0;
  };

 private:
  struct Shard {
    size_t changing = 0;
    size_t watchers = 0;
    bool applying = false;
    uint64_t changes = 0;
    absl::Time changed_at = absl::InfinitePast();
  };
  bool Idle(const Shard& shard) const ATTIC_REQUIRES(mutex_);
  void Sweep() ATTIC_REQUIRES(mutex_);

  const absl::Duration settle_;
  const std::function<absl::Time()> clock_;
  mutable Mutex mutex_;
  CondVar applied_;
  std::unordered_map<std::string, Shard> shards_ ATTIC_GUARDED_BY(mutex_);
  size_t sweep_at_ ATTIC_GUARDED_BY(mutex_) = 1024;  // as many shards
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_SHARD_CHANGES_H_
