#include "server/cluster/repair/shard_changes.h"

#include <algorithm>
#include <utility>

namespace attic {
namespace {

absl::Status Changed(const std::string& session_id) {
  return absl::AbortedError("repair: " + session_id + " was changed meanwhile");
}

std::vector<std::string> Distinct(std::vector<std::string> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

ShardChanges::ShardChanges(absl::Duration settle, std::function<absl::Time()> clock)
    : settle_(settle), clock_(std::move(clock)) {}

bool ShardChanges::Idle(const Shard& shard) const {
  return shard.changing == 0 && shard.watchers == 0 && shard.changed_at + settle_ <= clock_();
}

void ShardChanges::Sweep() {
  if (shards_.size() < sweep_at_) return;
  std::erase_if(shards_, [&](const auto& item) { return Idle(item.second); });
  sweep_at_ = std::max<size_t>(1024, 2 * shards_.size());
}

ShardChanges::Change::Change(ShardChanges& changes, std::vector<std::string> session_ids)
    : changes_(changes), session_ids_(Distinct(std::move(session_ids))) {
  MutexLock lock(changes_.mutex_);
  changes_.Sweep();
  // All are marked before any is waited for: a step that begins meanwhile finds its mark.
  for (const std::string& id : session_ids_) {
    Shard& shard = changes_.shards_[id];
    ++shard.changing;
    ++shard.changes;
  }
  for (const std::string& id : session_ids_) {
    while (changes_.shards_[id].applying) changes_.applied_.Wait(changes_.mutex_);
  }
}

ShardChanges::Change::~Change() {
  MutexLock lock(changes_.mutex_);
  for (const std::string& id : session_ids_) {
    Shard& shard = changes_.shards_[id];
    --shard.changing;
    shard.changed_at = changes_.clock_();
  }
}

ShardChanges::Watch::Watch(ShardChanges& changes, std::string session_id)
    : changes_(changes), session_id_(std::move(session_id)) {
  MutexLock lock(changes_.mutex_);
  changes_.Sweep();
  Shard& shard = changes_.shards_[session_id_];
  settled_ = changes_.Idle(shard);
  ++shard.watchers;
  begin_ = shard.changes;
}

ShardChanges::Watch::~Watch() {
  MutexLock lock(changes_.mutex_);
  const auto shard = changes_.shards_.find(session_id_);
  --shard->second.watchers;
  if (changes_.Idle(shard->second)) changes_.shards_.erase(shard);
}

absl::Status ShardChanges::Watch::Check() const {
  MutexLock lock(changes_.mutex_);
  const bool same = changes_.shards_[session_id_].changes == begin_;
  return settled_ && same ? absl::OkStatus() : Changed(session_id_);
}

absl::Status ShardChanges::Watch::Apply(const std::function<absl::Status()>& step) {
  {
    MutexLock lock(changes_.mutex_);
    Shard& shard = changes_.shards_[session_id_];
    if (!settled_ || shard.changes != begin_) return Changed(session_id_);
    shard.applying = true;
  }
  const absl::Status status = step();
  MutexLock lock(changes_.mutex_);
  changes_.shards_[session_id_].applying = false;
  changes_.applied_.NotifyAll();
  return status;
}

}  // namespace attic
