// Counts of numbers by size, cheap enough for every call.
#ifndef ATTIC_SERVER_SERVICE_HISTOGRAM_H_
#define ATTIC_SERVER_SERVICE_HISTOGRAM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attic {

// What a histogram held at one moment.
struct HistogramCounts {
  std::vector<double> upper_bounds;  // ascending
  std::vector<uint64_t> counts;      // one more than bounds: the last is of what is above all
  double sum = 0;
};

// Thread-safe and without locks: an observation is a search among the bounds and two relaxed
// additions. A reader may see an observation in the counts and not yet in the sum.
class Histogram {
 public:
  // `upper_bounds` ascend; a number counts under the first bound that is not below it.
  explicit Histogram(std::vector<double> upper_bounds);

  void Observe(double number);
  // As one call for each number, with one addition a bound for all of them. What is not finite
  // counts as above all bounds, and is not in the sum.
  void Observe(std::span<const float> numbers);

  HistogramCounts Read() const;

 private:
  static constexpr size_t kBoundsMax = 31;

  size_t BucketOf(double number) const;

  const std::vector<double> upper_bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_HISTOGRAM_H_
