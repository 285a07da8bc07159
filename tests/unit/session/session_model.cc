#include "tests/unit/session/session_model.h"

#include <algorithm>
#include <limits>

#include "attention/exact_attention.h"

namespace attic {
namespace {

// Rows of one head out of (tokens, heads, row_bytes).
std::vector<std::byte> Pick(const std::vector<std::byte>& all, size_t heads, size_t head,
                            size_t row_bytes, int64_t begin, int64_t end) {
  std::vector<std::byte> rows;
  for (int64_t token = begin; token < end; ++token) {
    const auto row = all.begin() + (static_cast<size_t>(token) * heads + head) * row_bytes;
    rows.insert(rows.end(), row, row + row_bytes);
  }
  return rows;
}

}  // namespace

SessionModel::SessionModel(const Fingerprint& fingerprint, const std::vector<uint32_t>& layers)
    : fingerprint_(fingerprint) {
  for (const uint32_t layer : layers) layers_[layer];
}

size_t SessionModel::token_key_bytes() const {
  return fingerprint_.kv_heads * fingerprint_.head_dim * ElementBytes(fingerprint_.element_type);
}

size_t SessionModel::token_value_bytes() const {
  return fingerprint_.kv_heads * fingerprint_.value_dim * ElementBytes(fingerprint_.element_type);
}

int64_t SessionModel::watermark(uint32_t layer) const {
  return static_cast<int64_t>(layers_.at(layer).keys.size() / token_key_bytes());
}

int64_t SessionModel::lowest_watermark() const {
  int64_t lowest = std::numeric_limits<int64_t>::max();
  for (const auto& [layer, held] : layers_) lowest = std::min(lowest, watermark(layer));
  return lowest;
}

int64_t SessionModel::highest_watermark() const {
  int64_t highest = 0;
  for (const auto& [layer, held] : layers_) highest = std::max(highest, watermark(layer));
  return highest;
}

void SessionModel::Append(uint32_t layer, const Tokens& tokens) {
  Layer& held = layers_.at(layer);
  held.keys.insert(held.keys.end(), tokens.keys.begin(), tokens.keys.end());
  held.values.insert(held.values.end(), tokens.values.begin(), tokens.values.end());
}

void SessionModel::Truncate(int64_t position) {
  for (const auto& [layer, held] : layers_) TruncateLayer(layer, position);
}

void SessionModel::TruncateLayer(uint32_t layer, int64_t position) {
  if (watermark(layer) <= position) return;
  Layer& held = layers_.at(layer);
  held.keys.resize(static_cast<size_t>(position) * token_key_bytes());
  held.values.resize(static_cast<size_t>(position) * token_value_bytes());
}

Tokens SessionModel::Held(uint32_t layer, int64_t begin, int64_t end) const {
  const Layer& held = layers_.at(layer);
  const auto cut = [begin, end](const std::vector<std::byte>& all, size_t bytes) {
    return std::vector<std::byte>(all.begin() + static_cast<int64_t>(bytes) * begin,
                                  all.begin() + static_cast<int64_t>(bytes) * end);
  };
  return {.count = static_cast<size_t>(end - begin),
          .keys = cut(held.keys, token_key_bytes()),
          .values = cut(held.values, token_value_bytes())};
}

SessionModel::Answer SessionModel::Attend(uint32_t layer, std::span<const float> queries,
                                          int64_t begin, int64_t end) const {
  const Fingerprint& f = fingerprint_;
  const Layer& held = layers_.at(layer);
  const size_t element_bytes = ElementBytes(f.element_type);
  const size_t tokens = static_cast<size_t>(end - begin);
  Answer answer;
  answer.output.resize(f.q_heads * f.value_dim);
  for (uint32_t q = 0; q < f.q_heads; ++q) {
    const size_t head = q / f.group();
    const auto keys = Pick(held.keys, f.kv_heads, head, f.head_dim * element_bytes, begin, end);
    const auto values =
        Pick(held.values, f.kv_heads, head, f.value_dim * element_bytes, begin, end);
    answer.log_sum_exp.push_back(
        ReferenceAttention(queries.subspan(q * f.head_dim, f.head_dim), f.logit_scale,
                           {keys.data(), f.element_type, tokens, f.head_dim},
                           {values.data(), f.element_type, tokens, f.value_dim},
                           std::span<double>(answer.output).subspan(q * f.value_dim, f.value_dim)));
  }
  return answer;
}

}  // namespace attic
