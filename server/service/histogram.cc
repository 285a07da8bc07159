#include "server/service/histogram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace attic {

Histogram::Histogram(std::vector<double> upper_bounds)
    : upper_bounds_(std::move(upper_bounds)), counts_(upper_bounds_.size() + 1) {
  ATTIC_CHECK(upper_bounds_.size() <= kBoundsMax);
  ATTIC_CHECK(std::is_sorted(upper_bounds_.begin(), upper_bounds_.end()));
}

size_t Histogram::BucketOf(double number) const {
  if (!std::isfinite(number)) return upper_bounds_.size();
  return static_cast<size_t>(std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), number) -
                             upper_bounds_.begin());
}

void Histogram::Observe(double number) {
  counts_[BucketOf(number)].fetch_add(1, std::memory_order_relaxed);
  if (std::isfinite(number)) sum_.fetch_add(number, std::memory_order_relaxed);
}

void Histogram::Observe(std::span<const float> numbers) {
  std::array<uint64_t, kBoundsMax + 1> counts{};
  double sum = 0;
  for (const float number : numbers) {
    ++counts[BucketOf(number)];
    if (std::isfinite(number)) sum += number;
  }
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts[i] > 0) counts_[i].fetch_add(counts[i], std::memory_order_relaxed);
  }
  sum_.fetch_add(sum, std::memory_order_relaxed);
}

HistogramCounts Histogram::Read() const {
  HistogramCounts read{.upper_bounds = upper_bounds_, .counts = {}, .sum = sum_};
  for (const auto& count : counts_) read.counts.push_back(count.load(std::memory_order_relaxed));
  return read;
}

}  // namespace attic
