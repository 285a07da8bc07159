#include "server/cluster/etcd/lease_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"

namespace attic {
namespace {

constexpr auto kRetryInterval = std::chrono::seconds(1);
constexpr int kKeepAlivesPerTtl = 3;

std::chrono::nanoseconds ToChrono(absl::Duration duration) {
  return absl::ToChronoNanoseconds(std::min(duration, kEtcdLeaseTtlMax));
}

}  // namespace

LeaseKeeper::LeaseKeeper(EtcdClient& client, absl::Duration ttl, LeaseKeeperHandler handler)
    : client_(client), ttl_(ttl), handler_(std::move(handler)), thread_([this] { Run(); }) {}

LeaseKeeper::~LeaseKeeper() { Stop(); }

int64_t LeaseKeeper::lease() const {
  MutexLock lock(mutex_);
  return Clock::now() < held_until_ ? lease_ : 0;
}

absl::Status LeaseKeeper::last_status() const {
  MutexLock lock(mutex_);
  return last_status_;
}

uint64_t LeaseKeeper::failures() const {
  MutexLock lock(mutex_);
  return failures_;
}

absl::Status LeaseKeeper::Release() {
  Stop();
  int64_t lease = 0;
  {
    MutexLock lock(mutex_);
    lease = std::exchange(lease_, 0);
  }
  if (lease == 0) lease = abandoned_lease_;  // the thread has ended
  if (lease == 0) return absl::OkStatus();
  const absl::Status status = client_.RevokeLease(lease);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

void LeaseKeeper::AskNow() {
  MutexLock lock(mutex_);
  ask_now_ = true;
  wake_.NotifyAll();
}

void LeaseKeeper::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

bool LeaseKeeper::WaitUntil(Clock::time_point due) {
  MutexLock lock(mutex_);
  while (!stopping_) {
    const auto left = due - Clock::now();
    if (left <= Clock::duration::zero() || std::exchange(ask_now_, false)) return true;
    wake_.WaitFor(mutex_, left);
  }
  return false;
}

void LeaseKeeper::SetHeld(int64_t lease, Clock::time_point until) {
  MutexLock lock(mutex_);
  lease_ = lease;
  held_until_ = until;
}

void LeaseKeeper::SetStatus(const absl::Status& status) {
  MutexLock lock(mutex_);
  last_status_ = status;
  if (!status.ok()) ++failures_;
}

void LeaseKeeper::Run() {
  while (WaitUntil(Clock::now())) {
    const Clock::time_point began = Clock::now();
    if (Acquire()) {
      KeepUntilLost();
    } else {
      WaitUntil(began + kRetryInterval);
    }
  }
}

bool LeaseKeeper::Acquire() {
  if (abandoned_lease_ != 0) {
    // etcd may have kept it, when only its answers did not come; so may the keys under it.
    const absl::Status status = client_.RevokeLease(abandoned_lease_);
    if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
      SetStatus(status);
      return false;
    }
    abandoned_lease_ = 0;  // revoked or not there; what etcd refuses to revoke ends by itself
  }
  const Clock::time_point sent = Clock::now();
  const absl::StatusOr<EtcdLease> lease = client_.GrantLease(ttl_);
  SetStatus(lease.status());
  if (!lease.ok()) return false;
  const Clock::time_point until = sent + ToChrono(lease->ttl);
  if (Clock::now() >= until) {
    abandoned_lease_ = lease->id;
    return false;
  }
  SetHeld(lease->id, until);
  return true;
}

void LeaseKeeper::KeepUntilLost() {
  int64_t lease = 0;
  Clock::time_point held_until;
  {
    MutexLock lock(mutex_);
    lease = lease_;
    held_until = held_until_;
  }
  const Clock::duration interval = (held_until - Clock::now()) / kKeepAlivesPerTtl;
  const Clock::duration retry = std::min<Clock::duration>(kRetryInterval, interval);
  bool registered = false;
  Clock::duration pause = interval;
  while (true) {
    const Clock::time_point began = Clock::now();
    if (!registered) {
      const absl::Status status = handler_.on_granted(lease);
      SetStatus(status);
      registered = status.ok();
    }
    if (!WaitUntil(std::min(began + (registered ? pause : retry), held_until))) return;
    const Clock::time_point sent = Clock::now();
    if (sent >= held_until) break;
    const absl::StatusOr<absl::Duration> left =
        client_.KeepAlive(lease, absl::FromChrono(held_until - sent));
    if (!left.ok() || registered) SetStatus(left.status());
    if (left.ok() && *left == absl::ZeroDuration()) break;
    if (left.ok()) {
      held_until = sent + ToChrono(*left);
      SetHeld(lease, held_until);
    }
    pause = left.ok() ? interval : retry;
  }
  SetHeld(0, held_until);
  abandoned_lease_ = lease;
  handler_.on_lost(lease);
}

}  // namespace attic
