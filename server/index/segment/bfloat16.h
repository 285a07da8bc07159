// Single bfloat16 numbers, for the small factors kept beside vectors.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_BFLOAT16_H_
#define ATTIC_SERVER_INDEX_SEGMENT_BFLOAT16_H_

#include <bit>
#include <cstdint>

namespace attic {

inline float WidenBFloat16(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }

// Rounds a finite number to nearest, ties to even.
inline uint16_t NarrowToBFloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_BFLOAT16_H_
