#include "server/index/search/tail_scores.h"

#include <algorithm>
#include <cmath>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr size_t kBlockRows = 64;

}  // namespace

void TailScores::Clear(size_t group) {
  group_ = group;
  blocks_.clear();
  scores_.clear();
  peaks_.clear();
  peak_.assign(group, kEmptyLogSumExp);
  log_mass_.assign(group, kEmptyLogSumExp);
}

void TailScores::Score(const TailView& tail, PositionRange range, std::span<const float> queries,
                       size_t group, ReadStatistics& read) {
  Clear(group);
  tail.ForEachRun(range, [&](int64_t, const VectorsView& keys, const VectorsView& values) {
    for (size_t begin = 0; begin < keys.count; begin += kBlockRows) {
      const size_t count = std::min(kBlockRows, keys.count - begin);
      ScoreBlock(keys.rows(begin, count), values.rows(begin, count), queries);
    }
    read.exact_tokens += keys.count;
    read.bytes_read += keys.bytes();
  });
  for (size_t g = 0; g < group; ++g) {
    double mass = 0;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      if (peaks_[b * group + g] < peak_[g] - kNegligible) continue;
      const size_t count = blocks_[b].values.count;
      const float* scores = scores_.data() + blocks_[b].scores + g * count;
      weights_.assign(scores, scores + count);
      mass += ExpInPlace(peak_[g], weights_);
    }
    if (mass > 0) log_mass_[g] = peak_[g] + static_cast<float>(std::log(mass));
  }
}

void TailScores::ScoreBlock(const VectorsView& keys, const VectorsView& values,
                            std::span<const float> queries) {
  const size_t at = scores_.size();
  scores_.resize(at + group_ * keys.count);
  ScoreVectors(queries.data(), group_, keys, scores_.data() + at);
  blocks_.push_back({values, at});
  for (size_t g = 0; g < group_; ++g) {
    // Sums of exponentials stay finite.
    const float peak =
        ScaleLogits(1.0f, std::span(scores_).subspan(at + g * keys.count, keys.count));
    peaks_.push_back(peak);
    peak_[g] = std::max(peak_[g], peak);
  }
}

void TailScores::Add(std::span<AttentionAccumulator> accumulators, ReadStatistics& read) {
  // From here on peak_ is what a weight must come near to be seen.
  for (size_t g = 0; g < group_; ++g) {
    peak_[g] = std::max(peak_[g], accumulators[g].max_logit());
  }
  std::vector<float*> numerators(group_);
  for (size_t b = 0; b < blocks_.size(); ++b) {
    bool seen = false;
    for (size_t g = 0; g < group_; ++g) {
      seen |= peaks_[b * group_ + g] >= peak_[g] - kNegligible;
    }
    if (!seen) continue;
    const VectorsView& values = blocks_[b].values;
    float* const scores = scores_.data() + blocks_[b].scores;
    for (size_t g = 0; g < group_; ++g) {
      const std::span<float> logits(scores + g * values.count, values.count);
      const float shift = accumulators[g].RaiseMax(peaks_[b * group_ + g]);
      accumulators[g].AddWeight(ExpInPlace(shift, logits));
      numerators[g] = accumulators[g].numerator().data();
    }
    AddWeightedVectors(scores, values, numerators);
    read.bytes_read += values.bytes();
  }
  Clear(group_);
}

}  // namespace attic
