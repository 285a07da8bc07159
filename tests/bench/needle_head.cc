#include "tests/bench/needle_head.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "attention/vector_kernels.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr size_t kTopics = 512, kTopicTokens = 64, kVocabulary = 4096;
constexpr size_t kDriftTokens = 256;    // between two states of the drift
constexpr double kDriftMemory = 20000;  // tokens
// Of the variance of a state; the rest is noise.
constexpr double kTopicShare = 0.25, kTokenShare = 0.15, kDriftShare = 0.1;
constexpr double kShift = 1;             // of keys, and by how much their directions differ
constexpr double kQueryDistance = 0.4;   // of a question's state from its needle, 0 to 1
constexpr double kValueNoise = 0.7;      // beside the image of the state
constexpr size_t kSampleStates = 32768;  // that stand for the text when lengths are chosen

std::discrete_distribution<size_t> Zipf(size_t kinds) {
  std::vector<double> weights(kinds);
  for (size_t i = 0; i < kinds; ++i) weights[i] = 1.0 / (static_cast<double>(i) + 4);
  return {weights.begin(), weights.end()};
}

// Takes from x what it has of each of the orthonormal `rows`.
void Orthogonalize(std::span<const std::vector<float>> rows, std::span<float> x) {
  for (const std::vector<float>& row : rows) {
    AddScaled(-Dot(row.data(), x.data(), x.size()), row.data(), x.size(), x.data());
  }
}

void SetLength(float length, std::span<float> x) {
  const float factor = length / std::sqrt(Dot(x.data(), x.data(), x.size()));
  for (float& element : x) element *= factor;
}

// out (count, dim) = in (count, dim) times the transpose of map.
void MapRows(std::span<const float> map, std::span<const float> in, size_t dim,
             std::span<float> out) {
  const VectorsView rows{reinterpret_cast<const std::byte*>(map.data()), ElementType::kFloat32, dim,
                         dim};
  ScoreVectors(in.data(), in.size() / dim, rows, out.data());
}

}  // namespace

NeedleHead::NeedleHead(const NeedleOptions& options)
    : options_(options),
      random_(options.seed),
      topic_of_(Zipf(kTopics)),
      token_of_(Zipf(kVocabulary)),
      topics_(kTopics * options.head_dim),
      vocabulary_(kVocabulary * options.head_dim),
      drift_from_(options.head_dim),
      drift_to_(options.head_dim) {
  FillNormal(topics_);
  FillNormal(vocabulary_);
  FillNormal(drift_to_);
  DrawMaps();
  DrawNeedles();
}

HeadShape NeedleHead::shape() const {
  HeadShape shape;
  shape.head_dim = shape.value_dim = static_cast<uint32_t>(dim());
  shape.group = static_cast<uint32_t>(options_.group);
  shape.logit_scale = 1.0f / std::sqrt(static_cast<float>(dim()));
  return shape;
}

std::span<const float> NeedleHead::question(size_t needle) const {
  const size_t size = options_.group * dim();
  return {&questions_[needle * size], size};
}

// Keys vary most where queries vary least.
void NeedleHead::DrawMaps() {
  std::vector<std::vector<float>> rows;
  for (size_t i = 0; i < dim(); ++i) {
    std::vector<float> row(dim());
    FillNormal(row);
    Orthogonalize(rows, row);
    Orthogonalize(rows, row);  // again, for the rounding of the first time
    SetLength(1, row);
    rows.push_back(std::move(row));
  }
  key_map_.resize(dim() * dim());
  query_map_ = value_map_ = key_map_;
  for (size_t i = 0; i < dim(); ++i) {
    for (size_t j = 0; j < dim(); ++j) {
      const double place = 2.0 * static_cast<double>(j) / static_cast<double>(dim() - 1) - 1;
      const auto stretch = static_cast<float>(std::exp(kShift * place));
      key_map_[i * dim() + j] = rows[j][i] * stretch;
      query_map_[i * dim() + j] = rows[j][i] / stretch;
    }
  }
  FillNormal(value_map_);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim()));
  for (float& x : value_map_) x *= scale;
  std::student_t_distribution<float> student(3);
  key_mean_.resize(dim());
  for (float& x : key_mean_) x = static_cast<float>(kShift) * student(random_);
  weights_.resize(options_.group * dim());
  for (float& x : weights_) x = std::exp(0.3f * normal_(random_));
}

void NeedleHead::DrawNeedles() {
  const size_t needles = 2 * options_.needles, copies = 1 + options_.distractors;
  ATTIC_CHECK(needles * copies < options_.tokens);
  std::unordered_set<int64_t> taken;
  while (spots_.size() < needles * copies) {
    const auto spot = static_cast<int64_t>(random_() % options_.tokens);
    if (taken.insert(spot).second) spots_.push_back(spot);
  }
  states_.resize(spots_.size() * dim());
  std::vector<float> sample(kSampleStates * dim());
  for (size_t i = 0; i < kSampleStates; ++i) DrawState({&sample[i * dim()], dim()});
  for (size_t needle = 0; needle < needles; ++needle) DrawQuestion(needle, sample);
  mean_length_ /= static_cast<double>(needles * options_.group);
}

void NeedleHead::DrawQuestion(size_t needle, std::span<const float> sample) {
  const std::span<float> state = needle_state(needle, 0);
  FillNormal(state);
  SetLength(std::sqrt(static_cast<float>(dim())), state);
  std::vector<float> asked(dim());
  FillNormal(asked);
  for (float& x : asked) x *= static_cast<float>(kQueryDistance);
  const auto near = static_cast<float>(std::sqrt(1 - kQueryDistance * kQueryDistance));
  AddScaled(near, state.data(), dim(), asked.data());
  std::uniform_real_distribution<double> share(kShareMin, kShareMax);
  std::vector<std::vector<float>> directions;
  double logits = 0;
  for (size_t g = 0; g < options_.group; ++g) {
    directions.push_back(Direction(g, asked));
    const double length = LengthFor(directions.back(), needle, share(random_), sample);
    logits += length * shape().logit_scale * Dot(directions.back().data(), state.data(), dim());
    AppendQuery(directions.back(), length, questions_);
    mean_length_ += length;
  }
  DrawDistractors(needle, std::move(directions), logits / static_cast<double>(options_.group));
}

double NeedleHead::LengthFor(std::span<const float> direction, size_t needle, double share,
                             std::span<const float> sample) const {
  const float scale = shape().logit_scale;
  const size_t count = sample.size() / dim();
  const float* state = &states_[needle * (1 + options_.distractors) * dim()];
  const double needle_logit = scale * Dot(direction.data(), state, dim());
  std::vector<float> logits(count);
  ScoreVectors(
      direction.data(), 1,
      {reinterpret_cast<const std::byte*>(sample.data()), ElementType::kFloat32, count, dim()},
      logits.data());
  // log(share / (1 - share)) were the query `length` times the direction.
  const auto log_odds = [&](double length) {
    std::vector<float> weights = logits;
    const float largest = ScaleLogits(static_cast<float>(length) * scale, weights);
    const double mean = ExpInPlace(largest, weights) / static_cast<double>(count);
    return length * needle_logit - largest - std::log(mean * static_cast<double>(options_.tokens));
  };
  const double wanted = std::log(share / (1 - share));
  double low = 0, high = 0.25, next = 1.25 * high;
  // Too long queries favour the largest of the other logits.
  for (; log_odds(high) < wanted; low = high, high = next, next *= 1.25) {
    if (log_odds(next) <= log_odds(high)) return high;
  }
  for (int i = 0; i < 12; ++i) {
    const double middle = (low + high) / 2;
    (log_odds(middle) < wanted ? low : high) = middle;
  }
  return high;
}

void NeedleHead::DrawDistractors(size_t needle, std::vector<std::vector<float>> directions,
                                 double needle_logit) {
  for (size_t g = 0; g < directions.size(); ++g) {
    Orthogonalize({directions.data(), g}, directions[g]);
    SetLength(1, directions[g]);
  }
  const std::span<const float> state = needle_state(needle, 0);
  const float length = std::sqrt(Dot(state.data(), state.data(), dim()));
  std::uniform_real_distribution<double> margin(kMarginMin, kMarginMax);
  for (size_t copy = 1; copy <= options_.distractors; ++copy) {
    const double kept = std::max(0.0, 1 - margin(random_) / needle_logit);
    const std::span<float> distractor = needle_state(needle, copy);
    FillNormal(distractor);
    Orthogonalize(directions, distractor);
    SetLength(length * static_cast<float>(std::sqrt(1 - kept * kept)), distractor);
    AddScaled(static_cast<float>(kept), state.data(), dim(), distractor.data());
  }
}

std::vector<float> NeedleHead::Direction(size_t query_head, std::span<const float> state) const {
  std::vector<float> direction(state.begin(), state.end());
  for (size_t i = 0; i < dim(); ++i) direction[i] *= weights_[query_head * dim() + i];
  return direction;
}

void NeedleHead::AppendQuery(std::span<const float> direction, double length,
                             std::vector<float>& queries) {
  std::vector<float> query(dim());
  MapRows(query_map_, direction, dim(), query);
  for (const float x : query) queries.push_back(static_cast<float>(length) * x);
}

std::vector<float> NeedleHead::TrainingQueries(size_t groups) {
  std::vector<float> queries, state(dim());
  double due = 0;
  size_t asked = 0;
  for (size_t i = 0; i < groups; ++i) {
    due += options_.training_share;
    if (due >= 1) {
      const auto query = question(options_.needles + asked++ % options_.needles);
      queries.insert(queries.end(), query.begin(), query.end());
      due -= 1;
      continue;
    }
    DrawState(state);
    for (size_t g = 0; g < options_.group; ++g) {
      AppendQuery(Direction(g, state), mean_length_, queries);
    }
  }
  return queries;
}

void NeedleHead::Mix(size_t topic, size_t token, std::span<const float> drift, State state) {
  FillNormal(state);
  const auto noise = static_cast<float>(std::sqrt(1 - kTopicShare - kTokenShare - kDriftShare));
  for (float& x : state) x *= noise;
  const auto add = [&](double share, const float* part) {
    AddScaled(static_cast<float>(std::sqrt(share)), part, dim(), state.data());
  };
  add(kTopicShare, &topics_[topic * dim()]);
  add(kTokenShare, &vocabulary_[token * dim()]);
  add(kDriftShare, drift.data());
}

void NeedleHead::DrawState(State state) {
  std::vector<float> drift(dim());
  FillNormal(drift);
  Mix(topic_of_(random_), token_of_(random_), drift, state);
}

void NeedleHead::StepDrift() {
  drift_from_ = drift_to_;
  const double keep = std::exp(-static_cast<double>(kDriftTokens) / kDriftMemory);
  for (float& x : drift_to_) {
    x = static_cast<float>(keep * x + std::sqrt(1 - keep * keep) * normal_(random_));
  }
}

void NeedleHead::NextState(State state) {
  if (random_() % kTopicTokens == 0) topic_ = topic_of_(random_);
  if (next_ % kDriftTokens == 0) StepDrift();
  const auto part = static_cast<float>(next_ % kDriftTokens) / kDriftTokens;
  std::vector<float> drift(dim());
  AddScaled(1 - part, drift_from_.data(), dim(), drift.data());
  AddScaled(part, drift_to_.data(), dim(), drift.data());
  Mix(topic_, token_of_(random_), drift, state);
  ++next_;
}

void NeedleHead::AppendTo(HeadIndex& index) {
  constexpr size_t kBatch = 8192;
  std::unordered_map<int64_t, size_t> spot_at;
  for (size_t spot = 0; spot < spots_.size(); ++spot) spot_at[spots_[spot]] = spot;
  const ElementType type = ElementType::kBFloat16;
  for (size_t begin = 0; begin < options_.tokens; begin += kBatch) {
    const size_t rows = std::min(kBatch, options_.tokens - begin), size = rows * dim();
    std::vector<float> states(size), keys(size), images(size), values(size);
    for (size_t row = 0; row < rows; ++row) {
      const State state{&states[row * dim()], dim()};
      NextState(state);
      const auto spot = spot_at.find(static_cast<int64_t>(begin + row));
      if (spot == spot_at.end()) continue;
      std::copy_n(&states_[spot->second * dim()], dim(), state.begin());
    }
    MapRows(key_map_, states, dim(), keys);
    for (size_t row = 0; row < rows; ++row) {
      AddScaled(1, key_mean_.data(), dim(), &keys[row * dim()]);
    }
    MapRows(value_map_, states, dim(), images);
    FillNormal(values);
    for (float& x : values) x *= static_cast<float>(kValueNoise);
    AddScaled(static_cast<float>(std::sqrt(1 - kValueNoise * kValueNoise)), images.data(), size,
              values.data());
    std::vector<std::byte> k(size * ElementBytes(type)), v(k.size());
    FromFloat32(keys, type, k.data());
    FromFloat32(values, type, v.data());
    index.Append({k.data(), type, rows, dim()}, {v.data(), type, rows, dim()});
  }
}

}  // namespace attic
