// What a session ought to hold: plain arrays and the attention oracle.
#ifndef ATTIC_TESTS_UNIT_SESSION_SESSION_MODEL_H_
#define ATTIC_TESTS_UNIT_SESSION_SESSION_MODEL_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "api/types.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {

class SessionModel {
 public:
  SessionModel(const Fingerprint& fingerprint, const std::vector<uint32_t>& layers);

  const Fingerprint& fingerprint() const { return fingerprint_; }
  int64_t watermark(uint32_t layer) const;
  int64_t lowest_watermark() const;
  int64_t highest_watermark() const;

  void Append(uint32_t layer, const Tokens& tokens);
  void Truncate(int64_t position);
  void TruncateLayer(uint32_t layer, int64_t position);
  // Positions [begin, end) as they are held.
  Tokens Held(uint32_t layer, int64_t begin, int64_t end) const;

  struct Answer {
    std::vector<double> output;       // (q_heads, value_dim)
    std::vector<double> log_sum_exp;  // (q_heads)
  };
  // Over [begin, end) of what is held.
  Answer Attend(uint32_t layer, std::span<const float> queries, int64_t begin, int64_t end) const;

 private:
  struct Layer {
    std::vector<std::byte> keys;
    std::vector<std::byte> values;
  };
  size_t token_key_bytes() const;
  size_t token_value_bytes() const;

  Fingerprint fingerprint_;
  std::map<uint32_t, Layer> layers_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_SESSION_SESSION_MODEL_H_
