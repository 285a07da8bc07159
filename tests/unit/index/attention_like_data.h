// Synthetic keys and queries of one head: keys lie in clusters, queries come from elsewhere, so
// that the best keys of a query are scattered over many clusters.
#ifndef ATTIC_TESTS_UNIT_INDEX_ATTENTION_LIKE_DATA_H_
#define ATTIC_TESTS_UNIT_INDEX_ATTENTION_LIKE_DATA_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "attention/element_type.h"

namespace attic {

// A generator whose seed is printed, so that a failure can be repeated.
std::mt19937_64 SeededRandom(uint64_t seed);

struct AttentionLikeData {
  size_t dim = 0;
  std::vector<float> keys;     // (key_count, dim)
  std::vector<float> queries;  // (query_count, dim)

  VectorsView keys_view() const {
    return {reinterpret_cast<const std::byte*>(keys.data()), ElementType::kFloat32,
            keys.size() / dim, dim};
  }
  size_t key_count() const { return keys.size() / dim; }
  size_t query_count() const { return queries.size() / dim; }
  const float* query(size_t i) const { return queries.data() + i * dim; }
};

AttentionLikeData MakeAttentionLikeData(size_t key_count, size_t query_count, size_t dim,
                                        std::mt19937_64& random);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_INDEX_ATTENTION_LIKE_DATA_H_
