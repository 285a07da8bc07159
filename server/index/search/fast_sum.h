// Sums of many floats.
#ifndef ATTIC_SERVER_INDEX_SEARCH_FAST_SUM_H_
#define ATTIC_SERVER_INDEX_SEARCH_FAST_SUM_H_

#include <cstddef>
#include <span>

namespace attic {

// In sixteen partial sums, which do not wait for each other and round less than one would.
inline double FastSum(std::span<const float> x) {
  constexpr size_t kPartial = 16;
  float partial[kPartial] = {};
  size_t i = 0;
  for (; i + kPartial <= x.size(); i += kPartial) {
    for (size_t j = 0; j < kPartial; ++j) partial[j] += x[i + j];
  }
  double sum = 0;
  for (const float part : partial) sum += part;
  for (; i < x.size(); ++i) sum += x[i];
  return sum;
}

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_FAST_SUM_H_
