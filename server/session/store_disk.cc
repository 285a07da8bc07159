#include "server/session/store_disk.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/session/session_recovery.h"

namespace attic {
namespace {

std::vector<std::shared_ptr<const Segment>> SegmentsOf(const Catalogue& catalogue) {
  std::vector<std::shared_ptr<const Segment>> all;
  for (const auto& session : catalogue.All()) {
    for (const auto& layer : session->layers()) {
      for (uint32_t h = 0; h < layer->kv_heads(); ++h) {
        const auto segments = layer->head(h).index().Segments();
        all.insert(all.end(), segments.begin(), segments.end());
      }
    }
  }
  return all;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreDisk>> StoreDisk::Open(
    const StoreDiskOptions& options, const std::shared_ptr<MemoryBudget>& budget,
    Catalogue& catalogue) {
  ATTIC_ASSIGN_OR_RETURN(auto store, DurableStore::Open(options.store));
  return std::unique_ptr<StoreDisk>(new StoreDisk(options, std::move(store), budget, catalogue));
}

StoreDisk::StoreDisk(const StoreDiskOptions& options, std::shared_ptr<DurableStore> store,
                     const std::shared_ptr<MemoryBudget>& budget, Catalogue& catalogue)
    : store_(std::move(store)),
      catalogue_(catalogue),
      sync_(store_, options.sync_interval),
      tier_(
          store_, budget, [this] { return SegmentsOf(catalogue_); }, options.tier) {}

StoreDisk::~StoreDisk() { StopRecovery(); }

void StoreDisk::StopRecovery() {
  stopping_ = true;
  if (recovery_.joinable()) recovery_.join();
}

absl::Status StoreDisk::StartRecovery(
    const SessionResources& resources, std::shared_ptr<ThreadPool> pool,
    std::function<void(const std::shared_ptr<Session>&)> recovered) {
  ATTIC_ASSIGN_OR_RETURN(std::vector<SessionRecord> records, store_->Sessions());
  std::vector<ToRecover> sessions;
  for (SessionRecord& record : records) {
    absl::StatusOr<std::shared_ptr<Session>> session = Session::Recover(record, resources);
    const absl::Status added = session.ok() ? catalogue_.Add(*session) : session.status();
    if (!added.ok()) {
      NoteDamage({absl::StrCat("session ", record.session_id), std::string(added.message())});
      continue;
    }
    sessions.push_back({std::move(record), *std::move(session)});
  }
  {
    MutexLock lock(mutex_);
    recovering_ = sessions.size();
  }
  recovery_ = std::thread([this, sessions = std::move(sessions), resources, pool = std::move(pool),
                           recovered = std::move(recovered)]() mutable {
    Recover(std::move(sessions), resources, pool, recovered);
  });
  return absl::OkStatus();
}

void StoreDisk::Recover(std::vector<ToRecover> sessions, const SessionResources& resources,
                        const std::shared_ptr<ThreadPool>& pool,
                        const std::function<void(const std::shared_ptr<Session>&)>& recovered) {
  for (ToRecover& next : sessions) {
    if (stopping_) return;
    const SessionResources own = resources.Of(next.session->attributes().tenant);
    RecoverSession(next.record, own, *pool, stopping_, *next.session);
    const Session::State state = next.session->state();
    if (state == Session::State::kServing || state == Session::State::kDamaged) {
      recovered(next.session);
    }
    if (state == Session::State::kDamaged || state == Session::State::kFailed) {
      NoteDamage({absl::StrCat("session ", next.record.session_id),
                  std::string(next.session->CheckChangeable().message())});
    }
    next.session.reset();
    MutexLock lock(mutex_);
    --recovering_;
    changed_.NotifyAll();
  }
}

absl::Status StoreDisk::WaitForRecovery(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (recovering_ > 0) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("sessions are still being read from disk");
    }
    changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(std::min(left, absl::Seconds(1))));
  }
  return absl::OkStatus();
}

void StoreDisk::NoteDamage(DamageReport report) {
  MutexLock lock(mutex_);
  damage_.push_back(std::move(report));
}

void StoreDisk::Describe(StoreStatus& status) const {
  status.damage = store_->damage();
  status.disk_bytes = store_->disk_bytes();
  const ClusterCacheUse cache = store_->cache_use();
  status.cache_bytes = cache.bytes;
  status.cache_hits = cache.hits;
  status.cache_misses = cache.misses;
  MutexLock lock(mutex_);
  status.recovering_sessions = recovering_;
  status.damage.insert(status.damage.end(), damage_.begin(), damage_.end());
}

}  // namespace attic
