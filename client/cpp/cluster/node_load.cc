#include "client/cpp/cluster/node_load.h"

#include <algorithm>
#include <cmath>

namespace attic {
namespace {

constexpr double kNewSampleShare = 0.2;
constexpr double kLatencyMinSeconds = 1e-4;  // of what was never asked, and of what was forgotten
constexpr double kHalfLifeSeconds = 2;
constexpr absl::Duration kFailingTime = absl::Milliseconds(500);
constexpr size_t kSamplesPerP95 = 16;  // between computations of the p95

}  // namespace

void NodeLoad::Started(size_t parts) {
  MutexLock lock(mutex_);
  parts_in_flight_ += parts;
}

void NodeLoad::Finished(size_t parts, absl::Duration latency, Outcome outcome, absl::Time now) {
  const double seconds = absl::ToDoubleSeconds(latency);
  MutexLock lock(mutex_);
  parts_in_flight_ -= std::min(parts, parts_in_flight_);
  if (outcome == Outcome::kFailed) {
    failing_until_ = now + kFailingTime;
    return;
  }
  if (outcome == Outcome::kLate) {
    latency_seconds_ = std::max(latency_seconds_, seconds);
    latency_seen_ = now;
    return;
  }
  failing_until_ = absl::InfinitePast();
  latency_seconds_ += kNewSampleShare * (seconds - latency_seconds_);
  latency_seen_ = now;
  samples_[sample_count_++ % kSamples] = static_cast<float>(seconds);
  if (sample_count_ < kSamplesMin || sample_count_ % kSamplesPerP95 != 0) return;
  std::array<float, kSamples> sorted = samples_;
  const size_t count = std::min<uint64_t>(sample_count_, kSamples);
  const auto p95 = sorted.begin() + count * 95 / 100;
  std::nth_element(sorted.begin(), p95, sorted.begin() + count);
  p95_seconds_ = *p95;
}

double NodeLoad::Score(size_t more_parts, absl::Time now) const {
  MutexLock lock(mutex_);
  const double age = std::max(0.0, absl::ToDoubleSeconds(now - latency_seen_));
  const double latency =
      std::max(kLatencyMinSeconds, latency_seconds_ * std::exp2(-age / kHalfLifeSeconds));
  return latency * static_cast<double>(1 + parts_in_flight_ + more_parts);
}

bool NodeLoad::Failing(absl::Time now) const {
  MutexLock lock(mutex_);
  return now < failing_until_;
}

absl::Duration NodeLoad::P95() const {
  MutexLock lock(mutex_);
  return p95_seconds_ == 0 ? absl::InfiniteDuration() : absl::Seconds(p95_seconds_);
}

}  // namespace attic
