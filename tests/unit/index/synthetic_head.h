// Keys, values and queries shaped like those of an attention head, for tests and benchmarks.
#ifndef ATTIC_TESTS_UNIT_INDEX_SYNTHETIC_HEAD_H_
#define ATTIC_TESTS_UNIT_INDEX_SYNTHETIC_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "attention/element_type.h"

namespace attic {

struct SyntheticOptions {
  size_t head_dim = 64;
  size_t value_dim = 64;
  size_t topics = 1000;
  double topic_run = 40;     // mean tokens before the text changes topic
  double noise = 0.6;        // of a token about its topic
  double query_length = 17;  // larger is sharper, at logit scale 1 / sqrt(head_dim)
  ElementType element_type = ElementType::kBFloat16;
  uint64_t seed = 1;
};

// Tokens wander through topics; keys and values are two linear images of one hidden state, queries
// a third, as in a decoder. Deterministic.
class SyntheticHead {
 public:
  explicit SyntheticHead(const SyntheticOptions& options);

  // The next `count` tokens, appended to keys (n, head_dim) and values (n, value_dim).
  void AppendTokens(size_t count, std::vector<float>& keys, std::vector<float>& values);

  // A query about a random topic.
  std::vector<float> Query();
  // About topic `topic` < topics, which has this weight in it beside noise of length 1 a dimension.
  std::vector<float> QueryAbout(size_t topic, float weight = 0.5f);

  // A query in a random direction and the key, of ordinary length, that it is for: unlike any other
  // key, with a logit far above theirs.
  void Needle(std::vector<float>& key, std::vector<float>& query);

  float logit_scale() const;
  std::mt19937_64& random() { return random_; }

 private:
  std::vector<float> Project(std::span<const float> matrix, std::span<const float> hidden,
                             size_t rows) const;
  float Normal() { return normal_(random_); }

  const SyntheticOptions options_;
  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
  std::vector<float> topics_, key_matrix_, value_matrix_;
  size_t topic_ = 0;
};

// Elements of `type`.
std::vector<std::byte> Narrow(std::span<const float> values, ElementType type);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_INDEX_SYNTHETIC_HEAD_H_
