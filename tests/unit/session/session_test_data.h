// Random keys, values and queries in the layout of the interface.
#ifndef ATTIC_TESTS_UNIT_SESSION_SESSION_TEST_DATA_H_
#define ATTIC_TESTS_UNIT_SESSION_SESSION_TEST_DATA_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "api/types.h"
#include "attention/element_type.h"

namespace attic {

inline Fingerprint SmallFingerprint(ElementType type = ElementType::kFloat32) {
  return {.model_id = "test",
          .revision = "1",
          .layers = 4,
          .q_heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .value_dim = 8,
          .element_type = type,
          .logit_scale = 0.25f,
          .position_encoding = "none"};
}

inline std::vector<float> RandomFloats(size_t count, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = normal(random);
  return numbers;
}

inline std::vector<std::byte> RandomElements(size_t count, ElementType type,
                                             std::mt19937_64& random) {
  std::vector<std::byte> bytes(count * ElementBytes(type));
  FromFloat32(RandomFloats(count, random), type, bytes.data());
  return bytes;
}

// The arrays of an AppendBatch.
struct Tokens {
  size_t count = 0;
  std::vector<std::byte> keys;    // (count, kv_heads, head_dim)
  std::vector<std::byte> values;  // (count, kv_heads, value_dim)

  static Tokens Random(const Fingerprint& f, size_t count, std::mt19937_64& random) {
    return {.count = count,
            .keys = RandomElements(count * f.kv_heads * f.head_dim, f.element_type, random),
            .values = RandomElements(count * f.kv_heads * f.value_dim, f.element_type, random)};
  }

  AppendBatch Batch(const std::string& session_id, uint32_t layer, int64_t begin) const {
    return {.session_id = session_id,
            .layer = layer,
            .begin_position = begin,
            .count = count,
            .keys = keys,
            .values = values};
  }
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_SESSION_SESSION_TEST_DATA_H_
