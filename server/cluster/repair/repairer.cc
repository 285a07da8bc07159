#include "server/cluster/repair/repairer.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/thread_pool.h"

namespace attic {
namespace {

// How long waiting for a map may keep the node from ending.
constexpr absl::Duration kMapWait = absl::Milliseconds(500);
// Reports of gaps are gathered for so long: each look asks peers for all they hold.
constexpr absl::Duration kGapPause = absl::Milliseconds(200);

RepairOptions WithWait(RepairOptions options, std::function<bool(absl::Time)> wait_until) {
  options.wait_until = std::move(wait_until);
  return options;
}

}  // namespace

Repairer::Repairer(Membership& membership, ShardHolder& holder, ShardChanges& changes,
                   ShardPeerFactory make_peer, RepairOptions options)
    : membership_(membership),
      options_(WithWait(std::move(options), [this](absl::Time time) { return WaitUntil(time); })),
      pass_(membership.node_id(), holder, changes, std::move(make_peer), options_),
      watcher_([this] { Watch(); }),
      thread_([this] { Run(); }) {}

Repairer::~Repairer() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
  watcher_.join();
}

void Repairer::NotifyGap(const std::string& session_id) {
  MutexLock lock(mutex_);
  if (gaps_.size() >= kGapsMax) return;
  gaps_.insert(session_id);
  wake_.NotifyAll();
}

bool Repairer::WaitUntil(absl::Time time) {
  MutexLock lock(mutex_);
  for (;;) {
    const absl::Duration left = time - options_.clock();
    if (stopping_) return false;
    if (left <= absl::ZeroDuration()) return true;
    wake_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
  }
}

void Repairer::Watch() {
  uint64_t epoch = 0;
  for (;;) {
    const absl::Time begin = absl::Now();
    const ClusterMapPtr map = membership_.WaitForNewer(epoch, begin + kMapWait);
    MutexLock lock(mutex_);
    if (stopping_) return;
    if (map != nullptr) {
      epoch = map->epoch;
      known_epoch_ = std::max(known_epoch_, epoch);
      const int64_t self = map->FindNode(membership_.node_id());
      was_down_ =
          was_down_ || self < 0 || map->nodes[static_cast<size_t>(self)].state == NodeState::kDown;
      wake_.NotifyAll();
      continue;
    }
    // A membership that has stopped does not wait.
    const absl::Duration left = begin + kMapWait - absl::Now();
    if (left > absl::ZeroDuration()) wake_.WaitFor(mutex_, absl::ToChronoNanoseconds(left));
  }
}

bool Repairer::WaitForWork(std::set<std::string>& gaps) {
  MutexLock lock(mutex_);
  for (;;) {
    if (stopping_) return false;
    const absl::Time now = options_.clock();
    absl::Time due = look_at_;
    if (!gaps_.empty()) due = std::min(due, gaps_after_);
    if (known_epoch_ > begun_epoch_ || (known_epoch_ > 0 && due <= now)) break;
    const absl::Duration left = std::clamp(due - now, absl::ZeroDuration(), absl::Hours(1));
    wake_.WaitFor(mutex_, absl::ToChronoNanoseconds(known_epoch_ == 0 ? absl::Hours(1) : left));
  }
  if (gaps.size() < kGapsMax) gaps.merge(gaps_);
  gaps_.clear();
  return true;
}

void Repairer::Run() {
  RunInBackground();           // answers go first
  std::set<std::string> gaps;  // those a pass that was abandoned did not get to, too
  while (WaitForWork(gaps)) {
    const ClusterMapPtr map = membership_.map();
    if (map == nullptr) continue;
    PassRequest request{.map = map, .gaps = gaps, .abandoned = [&] {
                          MutexLock lock(mutex_);
                          return stopping_ || known_epoch_ > map->epoch;
                        }};
    {
      MutexLock lock(mutex_);
      begun_epoch_ = map->epoch;
      request.was_down = std::exchange(was_down_, false);
    }
    const PassResult result = pass_.Run(request);
    if (result.report.has_value()) {
      membership_.Report(*result.report);
      gaps.clear();
    }
    MutexLock lock(mutex_);
    look_at_ = result.again_at;
    gaps_after_ = options_.clock() + kGapPause;
  }
}

}  // namespace attic
