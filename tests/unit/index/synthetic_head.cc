#include "tests/unit/index/synthetic_head.h"

#include <cmath>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr size_t kHiddenDim = 64;

}  // namespace

SyntheticHead::SyntheticHead(const SyntheticOptions& options)
    : options_(options), random_(options.seed) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(kHiddenDim));
  const auto fill = [&](std::vector<float>& matrix, size_t rows, float factor) {
    matrix.resize(rows * kHiddenDim);
    for (float& x : matrix) x = factor * Normal();
  };
  fill(topics_, options.topics, 1.0f);
  fill(key_matrix_, options.head_dim, scale);
  fill(value_matrix_, options.value_dim, scale);
}

std::vector<float> SyntheticHead::Project(std::span<const float> matrix,
                                          std::span<const float> hidden, size_t rows) const {
  std::vector<float> out(rows);
  for (size_t i = 0; i < rows; ++i) {
    out[i] = Dot(matrix.data() + i * kHiddenDim, hidden.data(), kHiddenDim);
  }
  return out;
}

void SyntheticHead::AppendTokens(size_t count, std::vector<float>& keys,
                                 std::vector<float>& values) {
  std::vector<float> hidden(kHiddenDim);
  std::uniform_real_distribution<double> uniform;
  for (size_t t = 0; t < count; ++t) {
    if (uniform(random_) * options_.topic_run < 1.0) {
      // Some topics are far more frequent than others.
      topic_ = static_cast<size_t>(std::pow(uniform(random_), 2.0) * options_.topics);
    }
    for (size_t i = 0; i < kHiddenDim; ++i) {
      hidden[i] = topics_[topic_ * kHiddenDim + i] + static_cast<float>(options_.noise) * Normal();
    }
    const std::vector<float> key = Project(key_matrix_, hidden, options_.head_dim);
    const std::vector<float> value = Project(value_matrix_, hidden, options_.value_dim);
    keys.insert(keys.end(), key.begin(), key.end());
    values.insert(values.end(), value.begin(), value.end());
  }
}

std::vector<float> SyntheticHead::Query() { return QueryAbout(random_() % options_.topics); }

std::vector<float> SyntheticHead::QueryAbout(size_t topic, float weight) {
  std::vector<float> hidden(kHiddenDim);
  for (size_t i = 0; i < kHiddenDim; ++i) {
    hidden[i] = weight * topics_[topic * kHiddenDim + i] + Normal();
  }
  std::vector<float> query = Project(key_matrix_, hidden, options_.head_dim);
  const float length = std::sqrt(Dot(query.data(), query.data(), query.size()));
  for (float& x : query) x *= static_cast<float>(options_.query_length) / length;
  return query;
}

void SyntheticHead::Needle(std::vector<float>& key, std::vector<float>& query) {
  key.resize(options_.head_dim);
  for (float& x : key) x = Normal();
  const float length = std::sqrt(Dot(key.data(), key.data(), key.size()));
  query = key;
  for (float& x : query) x *= static_cast<float>(options_.query_length) / length;
  const float key_length = 1.2f * std::sqrt(static_cast<float>(options_.head_dim));
  for (float& x : key) x *= key_length / length;
}

float SyntheticHead::logit_scale() const {
  return 1.0f / std::sqrt(static_cast<float>(options_.head_dim));
}

std::vector<std::byte> Narrow(std::span<const float> values, ElementType type) {
  std::vector<std::byte> out(values.size() * ElementBytes(type));
  FromFloat32(values, type, out.data());
  return out;
}

}  // namespace attic
