#include "server/cluster/liveness/liveness_probe.h"

#include <netinet/in.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace attic {
namespace {

// Of one wait, so that a wake-up that could not be sent is only late.
constexpr std::chrono::milliseconds kWaitMax{200};

}  // namespace

struct LivenessProbe::Wake {
  OwnedDescriptor event{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};  // none where there are no more

  void Notify() const {
    if (event.number() >= 0) eventfd_write(event.number(), 1);
  }
  void Forget() const {
    eventfd_t count = 0;
    if (event.number() >= 0) eventfd_read(event.number(), &count);
  }
};

LivenessProbe::LivenessProbe(LivenessProbeOptions options, OnGone on_gone)
    : options_(std::move(options)),
      on_gone_(std::move(on_gone)),
      wake_(std::make_shared<Wake>()),
      resolver_(options_.resolve, [wake = wake_] { wake->Notify(); }),
      random_(std::random_device()()),
      thread_([this] { Run(); }) {}

LivenessProbe::~LivenessProbe() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_->Notify();
  thread_.join();
}

void LivenessProbe::SetTargets(std::vector<ProbeTarget> targets) {
  {
    MutexLock lock(mutex_);
    new_targets_ = std::move(targets);
  }
  wake_->Notify();
}

void LivenessProbe::Run() {
  while (TakeTargets()) {
    TakeAddresses();
    StartDue();
    WaitForSockets();
  }
}

bool LivenessProbe::TakeTargets() {
  std::optional<std::vector<ProbeTarget>> targets;
  {
    MutexLock lock(mutex_);
    if (stopping_) return false;
    targets.swap(new_targets_);
  }
  if (targets.has_value()) Adopt(*std::move(targets));
  return true;
}

LivenessProbe::Clock::duration LivenessProbe::Between(Clock::duration least, Clock::duration most) {
  return Clock::duration(std::uniform_int_distribution<Clock::rep>(
      least.count(), std::max(least, most).count())(random_));
}

void LivenessProbe::Adopt(std::vector<ProbeTarget> targets) {
  std::map<std::string, Probe> probes;
  for (ProbeTarget& target : targets) {
    Probe probe;
    const auto known = probes_.find(target.node_id);
    if (known != probes_.end() && known->second.target.address == target.address &&
        known->second.target.boot_id == target.boot_id) {
      probe = std::move(known->second);
      if (probe.target.registration != target.registration) probe.refusals = 0;
    }
    const Clock::duration period = absl::ToChronoNanoseconds(target.period);
    // New, or probed more often than before.
    if (probe.target.period != target.period ||
        probe.target.until_accepted != target.until_accepted) {
      const Clock::time_point first = Clock::now() + Between({}, period);
      if (probe.target.node_id.empty() || probe.rests() || first < probe.due) probe.due = first;
    }
    const std::string node_id = target.node_id;
    probe.target = std::move(target);
    probes[node_id] = std::move(probe);
  }
  probes_ = std::move(probes);
}

void LivenessProbe::TakeAddresses() {
  for (AddressResolver::Resolved& resolved : resolver_.Take()) {
    for (auto& [node_id, probe] : probes_) {
      if (!probe.resolving || probe.target.address != resolved.address) continue;
      probe.resolving = false;
      probe.addresses = resolved.addresses;
      if (probe.addresses.empty()) BackOff(probe);
    }
  }
}

void LivenessProbe::StartDue() {
  const Clock::time_point now = Clock::now();
  std::vector<Probe*> due;
  for (auto& [node_id, probe] : probes_) {
    if (probe.waits() && probe.due <= now) due.push_back(&probe);
  }
  std::sort(due.begin(), due.end(), [](Probe* a, Probe* b) { return a->due < b->due; });
  in_flight_ = static_cast<size_t>(std::count_if(probes_.begin(), probes_.end(), [](auto& probe) {
    return probe.second.socket.number() >= 0;
  }));
  for (Probe* const probe : due) {
    if (probe->addresses.empty()) Resolve(*probe);
    if (probe->addresses.empty()) continue;
    if (in_flight_ >= options_.in_flight_max) break;
    Connect(*probe);
  }
}

void LivenessProbe::Resolve(Probe& probe) {
  probe.addresses = ResolveNumericAddress(probe.target.address);
  if (!probe.addresses.empty()) return;
  probe.resolving = resolver_.Ask(probe.target.address);
  if (!probe.resolving) BackOff(probe);
}

void LivenessProbe::Connect(Probe& probe) {
  const SocketAddress& address = probe.addresses[probe.next_address];
  OwnedDescriptor socket(
      ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.number() < 0) return Finish(probe, Outcome::kNothing);
  // Closed by a reset: nothing of the connection is kept, here or there.
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(socket.number(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  const int connected = options_.connect != nullptr
                            ? options_.connect(socket.number(), address.get(), address.size)
                            : connect(socket.number(), address.get(), address.size);
  if (connected == 0) return Finish(probe, Outcome::kAccepted);
  if (errno != EINPROGRESS) {
    return Finish(probe, errno == ECONNREFUSED ? Outcome::kRefused : Outcome::kNothing);
  }
  probe.socket = std::move(socket);
  probe.gives_up = Clock::now() + absl::ToChronoNanoseconds(options_.connect_timeout);
  ++in_flight_;
}

void LivenessProbe::WaitForSockets() {
  Clock::time_point until = Clock::now() + kWaitMax;
  polled_.clear();
  polled_probes_.clear();
  for (auto& [node_id, probe] : probes_) {
    if (probe.socket.number() >= 0) {
      polled_.push_back({.fd = probe.socket.number(), .events = POLLOUT, .revents = 0});
      polled_probes_.push_back(&probe);
      until = std::min(until, probe.gives_up);
    } else if (probe.waits() && in_flight_ < options_.in_flight_max) {
      until = std::min(until, probe.due);
    }
  }
  polled_.push_back({.fd = wake_->event.number(), .events = POLLIN, .revents = 0});
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  const int ready = poll(polled_.data(), polled_.size(), static_cast<int>(std::max(wait, 0L)));
  wake_->Forget();
  const Clock::time_point now = Clock::now();
  for (size_t i = 0; i < polled_probes_.size(); ++i) {
    Probe& probe = *polled_probes_[i];
    if (ready > 0 && polled_[i].revents != 0) {
      int error = 0;
      socklen_t size = sizeof(error);
      if (getsockopt(probe.socket.number(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
      }
      Finish(probe, error == 0              ? Outcome::kAccepted
                    : error == ECONNREFUSED ? Outcome::kRefused
                                            : Outcome::kNothing);
    } else if (now >= probe.gives_up) {
      Finish(probe, Outcome::kNothing);
    }
  }
}

void LivenessProbe::BackOff(Probe& probe) {
  probe.refusals = 0;
  const Clock::duration least = absl::ToChronoNanoseconds(options_.unanswered_min);
  const Clock::duration most = absl::ToChronoNanoseconds(options_.unanswered_max);
  probe.backoff = probe.accepted ? least : std::clamp(probe.backoff * 2, least, most);
  const Clock::duration pause =
      std::max<Clock::duration>(probe.backoff, absl::ToChronoNanoseconds(probe.target.period));
  probe.due = Clock::now() + Between(pause * 3 / 4, pause * 5 / 4);
}

void LivenessProbe::Finish(Probe& probe, Outcome outcome) {
  probe.socket = OwnedDescriptor();
  if (!probe.accepted && outcome != Outcome::kAccepted) {
    if (++probe.next_address < probe.addresses.size()) return;  // due as it was
    probe.next_address = 0;
    probe.addresses.clear();  // name servers may know better next time
    return BackOff(probe);
  }
  if (outcome == Outcome::kNothing) return BackOff(probe);
  const Clock::duration period = absl::ToChronoNanoseconds(probe.target.period);
  probe.due = Clock::now() + Between(period * 3 / 4, period * 5 / 4);
  if (outcome == Outcome::kAccepted) {
    probe.accepted = true;
    probe.refusals = 0;
    return;
  }
  if (++probe.refusals < 2) {
    const Clock::duration confirm = absl::ToChronoNanoseconds(options_.confirm_after);
    probe.due = Clock::now() + Between(confirm, confirm * 3 / 2);
    return;
  }
  probe.refusals = 0;
  on_gone_(probe.target);
}

}  // namespace attic
