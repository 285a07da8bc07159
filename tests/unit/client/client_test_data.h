// Random sessions for client tests, and the oracle for their attention.
#ifndef ATTIC_TESTS_UNIT_CLIENT_CLIENT_TEST_DATA_H_
#define ATTIC_TESTS_UNIT_CLIENT_CLIENT_TEST_DATA_H_

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "api/types.h"
#include "attention/exact_attention.h"
#include "server/session/session_store.h"

namespace attic {

inline Fingerprint TestFingerprint() {
  return {.model_id = "test",
          .revision = "1",
          .layers = 4,
          .q_heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .value_dim = 8,
          .element_type = ElementType::kFloat32,
          .logit_scale = 0.25f,
          .position_encoding = "none"};
}

// Small enough that a few thousand tokens pass through segments and clusters.
inline SessionStoreOptions SmallStoreOptions() {
  SessionStoreOptions options;
  options.threads = 2;
  options.build_threads = 1;
  options.index.segment_tokens = 256;
  options.index.exact_scan_tokens_max = 1024;
  return options;
}

inline std::vector<float> RandomFloats(size_t count, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// One layer's keys and values in float32.
struct TestLayer {
  TestLayer(size_t count, std::mt19937_64& random)
      : count(count),
        keys(RandomFloats(count * f.kv_heads * f.head_dim, random)),
        values(RandomFloats(count * f.kv_heads * f.value_dim, random)) {}

  AppendBatch Batch(const std::string& session_id, uint32_t layer, int64_t begin,
                    size_t tokens) const {
    const size_t key_row = f.kv_heads * f.head_dim, value_row = f.kv_heads * f.value_dim;
    return {
        .session_id = session_id,
        .layer = layer,
        .begin_position = begin,
        .count = tokens,
        .keys = std::as_bytes(std::span(keys).subspan(begin * key_row, tokens * key_row)),
        .values = std::as_bytes(std::span(values).subspan(begin * value_row, tokens * value_row))};
  }

  // The rows of one kv head, contiguous.
  std::vector<float> HeadRows(const std::vector<float>& rows, uint32_t kv_head, size_t dim,
                              PositionRange range) const {
    std::vector<float> out;
    for (int64_t i = range.begin; i < range.end; ++i) {
      const float* row = rows.data() + (i * f.kv_heads + kv_head) * dim;
      out.insert(out.end(), row, row + dim);
    }
    return out;
  }

  // Exact attention of (q_heads, head_dim) queries: output (q_heads, value_dim).
  std::vector<double> Oracle(const std::vector<float>& queries, PositionRange range,
                             std::vector<double>& log_sum_exp) const {
    std::vector<double> output(f.q_heads * f.value_dim);
    log_sum_exp.resize(f.q_heads);
    for (uint32_t head = 0; head < f.q_heads; ++head) {
      const uint32_t kv_head = head / f.group();
      const std::vector<float> k = HeadRows(keys, kv_head, f.head_dim, range);
      const std::vector<float> v = HeadRows(values, kv_head, f.value_dim, range);
      const size_t tokens = static_cast<size_t>(range.end - range.begin);
      log_sum_exp[head] = ReferenceAttention(
          std::span(queries).subspan(head * f.head_dim, f.head_dim), f.logit_scale,
          {std::as_bytes(std::span(k)).data(), ElementType::kFloat32, tokens, f.head_dim},
          {std::as_bytes(std::span(v)).data(), ElementType::kFloat32, tokens, f.value_dim},
          std::span(output).subspan(head * f.value_dim, f.value_dim));
    }
    return output;
  }

  const Fingerprint f = TestFingerprint();
  size_t count;
  std::vector<float> keys;    // (count, kv_heads, head_dim)
  std::vector<float> values;  // (count, kv_heads, value_dim)
};

inline double RelativeError(const std::vector<float>& got, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(got[i] - want[i], 2);
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLIENT_CLIENT_TEST_DATA_H_
