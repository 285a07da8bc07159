#include "server/cluster/repair/repairer.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/thread_pool.h"

namespace attic {
namespace {

// How long waiting for a map may keep the node from ending.
constexpr absl::Duration kMapWait = absl::Milliseconds(500);
// Reports of gaps are gathered for so long: each look is a message to every replica.
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

void Repairer::TakeGaps(std::set<std::string>& gaps) {
  if (gaps.size() < kGapsMax) gaps.merge(gaps_);
  gaps_.clear();
}

Repairer::Work Repairer::WaitForWork(std::set<std::string>& gaps) {
  MutexLock lock(mutex_);
  for (;;) {
    if (stopping_) return Work::kEnd;
    const absl::Time now = options_.clock();
    const absl::Time gaps_due =
        std::min(gaps_again_, gaps_.empty() ? absl::InfiniteFuture() : gaps_after_);
    const bool pass = known_epoch_ > begun_epoch_ || (known_epoch_ > 0 && look_at_ <= now);
    if (pass || (known_epoch_ > 0 && gaps_due <= now)) {
      TakeGaps(gaps);
      return pass ? Work::kPass : Work::kGaps;
    }
    const absl::Time due = std::min(look_at_, gaps_due);
    const absl::Duration left = std::clamp(due - now, absl::ZeroDuration(), absl::Hours(1));
    wake_.WaitFor(mutex_, absl::ToChronoNanoseconds(known_epoch_ == 0 ? absl::Hours(1) : left));
  }
}

void Repairer::Run() {
  RunInBackground();           // answers go first
  std::set<std::string> gaps;  // those that are left, too
  for (;;) {
    const Work work = WaitForWork(gaps);
    if (work == Work::kEnd) return;
    const ClusterMapPtr map = membership_.map();
    if (map == nullptr) continue;
    uint64_t begun_epoch = 0;
    {
      MutexLock lock(mutex_);
      begun_epoch = begun_epoch_;
    }
    if (work == Work::kGaps && map->epoch == begun_epoch) {
      RunGaps(map, gaps);
    } else {
      RunPass(map, gaps);
    }
  }
}

bool Repairer::Abandoned(const ClusterMap& map) {
  MutexLock lock(mutex_);
  return stopping_ || known_epoch_ > map.epoch;
}

void Repairer::RunPass(const ClusterMapPtr& map, std::set<std::string>& gaps) {
  PassRequest request{.map = map, .gaps = gaps, .abandoned = [&] { return Abandoned(*map); }};
  {
    MutexLock lock(mutex_);
    begun_epoch_ = map->epoch;
    request.was_down = std::exchange(was_down_, false);
  }
  PassResult result = pass_.Run(request);
  absl::Time gaps_again = absl::InfiniteFuture();
  if (result.report.has_value()) {
    gaps = std::move(result.gaps_left);
    if (!gaps.empty()) gaps_again = result.again_at;
    const bool filled = result.report->node_synced || !result.report->slots.empty();
    {
      MutexLock lock(mutex_);
      if (filled) TakeGaps(gaps);
    }
    // What was reported meanwhile may be acknowledged by the others: nothing is said before it is
    // here.
    const GapResult found = filled ? FillGaps(map, gaps) : GapResult();
    if (filled) gaps_again = found.retry_at;
    if (found.lacked) {
      result.report = SyncReport{.epoch = map->epoch};
      result.again_at = options_.clock() + kGapPause;
    }
    Report(*result.report);
  }
  MutexLock lock(mutex_);
  look_at_ = result.again_at;
  gaps_again_ = gaps_again;
  gaps_after_ = options_.clock() + kGapPause;
}

GapResult Repairer::FillGaps(const ClusterMapPtr& map, std::set<std::string>& gaps) {
  GapResult result =
      pass_.RunGaps({.map = map, .gaps = gaps, .abandoned = [&] { return Abandoned(*map); }});
  gaps = std::move(result.left);
  result.retry_at = gaps.empty() ? absl::InfiniteFuture()
                                 : std::max(result.retry_at, options_.clock() + kGapPause);
  return result;
}

void Repairer::RunGaps(const ClusterMapPtr& map, std::set<std::string>& gaps) {
  const GapResult result = FillGaps(map, gaps);
  // Called filled too early: taken back, should nobody have acted upon it.
  const bool said = reported_.node_synced || !reported_.slots.empty();
  if (result.lacked && said) Report({.epoch = map->epoch});
  MutexLock lock(mutex_);
  if (result.lacked) look_at_ = options_.clock();
  gaps_again_ = result.retry_at;
  gaps_after_ = options_.clock() + kGapPause;
}

void Repairer::Report(const SyncReport& report) {
  reported_ = report;
  membership_.Report(report);
}

}  // namespace attic
