// Normally distributed numbers for tests.
#ifndef ATTIC_TESTS_UNIT_INDEX_NORMAL_FLOATS_H_
#define ATTIC_TESTS_UNIT_INDEX_NORMAL_FLOATS_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace attic {

inline std::vector<float> NormalFloats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& element : x) element = normal(random);
  return x;
}

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_INDEX_NORMAL_FLOATS_H_
