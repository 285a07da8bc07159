#include "server/index/search/calibrate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "attention/exact_attention.h"
#include "attention/vector_kernels.h"
#include "server/index/search/descent.h"
#include "server/index/search/descent_answer.h"
#include "server/index/search/indexed_attention.h"
#include "server/index/search/selection.h"

namespace attic {
namespace {

constexpr size_t kQueries = 64;
constexpr float kWideNorms[] = {0.0f, 0.25f, 0.5f, 0.75f, 1.0f};
constexpr double kRestSeen = 0.02;   // of the mass
constexpr double kRestEnough = 0.8;  // of the true rest
constexpr double kRestsLow = 0.2;    // of the queries
constexpr double kCoverageAsked = 0.9;
constexpr int kRestRounds = 2;
constexpr size_t kCoverageStride = 2;
constexpr double kRestMin = 0.01;  // share of the mass from which on the rest is judged
constexpr double kRestQuantile = 0.95;
constexpr double kRestFactorMax = 10.0;
constexpr float kLogHiddenShare = -6.9f;
constexpr double kGroupCost = 0.6;  // of a walk, for each further query of a group
constexpr double kErrorsAsked[] = {0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002};

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Median(std::vector<double>& x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return *middle;
}

// The latest queries were computed where the latest keys were, and would find themselves there, as
// no query does whose window is attended elsewhere.
int64_t RangeEnd(const IndexedPart& part) {
  return part.segments.size() > 1 ? part.segments.back()->begin_position : part.token_count();
}

class Calibrator {
 public:
  Calibrator(const IndexedPart& part, std::vector<float> queries)
      : part_(part),
        head_dim_(part.shape.head_dim),
        value_dim_(part.shape.value_dim),
        range_{0, RangeEnd(part)},
        queries_(std::move(queries)),
        count_(queries_.size() / head_dim_),
        exact_(count_ * value_dim_),
        output_(value_dim_),
        scratch_(nullptr) {}

  Calibration Run(const ErrorModel& prior) {
    AttendExactly();
    for (size_t i = 0; i < count_; ++i) MeasureHiddenMass(i);
    IndexedPart fitted = part_;
    Calibration& calibration = fitted.calibration;
    calibration = {.hidden_mass = static_cast<float>(hidden_mass_ / static_cast<double>(count_)),
                   .wide_norm = WideNorm()};
    for (size_t i = 0; i < count_; ++i) {
      for (size_t level = 0; level < kDoubtLevels; ++level) MeasureLevel(fitted, i, level);
    }
    const std::vector<ErrorSample> of_levels = std::exchange(samples_, {});
    calibration.errors = FitErrorModel(of_levels, {}, prior);
    calibration.exact_below = MeasureWalks(fitted);
    calibration.errors = FitErrorModel(of_levels, samples_, prior);
    // Going further changes what the rest is, so what was learnt is tried.
    for (int round = 0; round < kRestRounds; ++round) {
      rest_factors_.clear();
      for (size_t i = 0; i < count_; i += kCoverageStride) MeasureCoverage(fitted, i);
      calibration.rest_factor = std::max(calibration.rest_factor, RestFactor());
    }
    return calibration;
  }

 private:
  std::span<const float> Query(size_t i) const {
    return {queries_.data() + i * head_dim_, head_dim_};
  }

  void AttendExactly() {
    std::vector<AttentionAccumulator> accumulators;
    ScanScratch scan;
    for (size_t begin = 0; begin < count_; begin += part_.shape.group) {
      const size_t n = std::min<size_t>(part_.shape.group, count_ - begin);
      const double start = ThreadSeconds();
      accumulators.assign(n, AttentionAccumulator(value_dim_));
      for (const auto& segment : part_.segments) {
        if (segment->begin_position >= range_.end) break;
        ScanExact(Query(begin).data(), 1.0f, segment->key_rows(), segment->value_rows(),
                  accumulators, scan);
      }
      for (size_t i = 0; i < n; ++i) {
        exact_log_sums_.push_back(
            accumulators[i].Finish({exact_.data() + (begin + i) * value_dim_, value_dim_}));
      }
      exact_seconds_.push_back(ThreadSeconds() - start);
    }
  }

  void Prepare(size_t i) {
    scratch_.queries.assign(Query(i).begin(), Query(i).end());
    scratch_.accumulators.assign(1, AttentionAccumulator(value_dim_));
    scratch_.tail.Clear(1);
  }

  void AddSample(size_t i, const LevelDoubts& doubts, float scale) {
    scratch_.accumulators[0].Finish(output_);
    const float* exact = exact_.data() + i * value_dim_;
    ErrorSample sample;
    sample.squared_error = SquaredDistance(output_.data(), exact, value_dim_);
    sample.square = Dot(exact, exact, value_dim_);
    for (size_t l = 0; l < kDoubtLevels; ++l) sample.doubts[l] = doubts[l] / double{scale};
    samples_.push_back(sample);
  }

  void MeasureHiddenMass(size_t i) {
    Prepare(i);
    ReadStatistics read;
    Descent descent(part_, {.queries = scratch_.queries, .range = range_}, scratch_.descent, read);
    descent.Begin();
    scratch_.descent.other_log_mass.assign(1, kEmptyLogSumExp);
    descent.UpdateTotals();
    descent.FindHiddenKeys(kLogHiddenShare, std::numeric_limits<double>::infinity());
    descent.UpdateTotals();
    hidden_mass_ += scratch_.descent.exact_mass[0];
    AddRests(i);
  }

  // What is left when hidden keys are found: in truth, and with a share of the norm, relative to
  // all.
  void AddRests(size_t i) {
    const DescentState& state = scratch_.descent;
    const float log_total = exact_log_sums_[i];
    const double exact = state.exact_mass[0] * std::exp(double{state.log_total[0]} - log_total);
    Rests rests{.truth = 1 - exact};
    const float norm = DeviationNorm(part_.terms->super_clusters, Query(i));
    std::vector<float> mass(part_.super_cluster_count());
    for (size_t w = 0; w < std::size(kWideNorms); ++w) {
      EstimateLogMass(state.super_logits.data(), part_.super_sums(), kWideNorms[w] * norm,
                      mass.data());
      for (size_t s = 0; s < mass.size(); ++s) {
        if (state.super_state[s] != SuperState::kWhole) continue;
        rests.estimated[w] += std::exp(std::min(double{mass[s]} - log_total, 30.0));
      }
    }
    rests_.push_back(rests);
  }

  // The smallest share with which estimates are hardly ever far too low.
  float WideNorm() const {
    for (size_t w = 0; w < std::size(kWideNorms); ++w) {
      size_t low = 0;
      for (const Rests& rests : rests_) {
        low += rests.truth > kRestSeen && rests.estimated[w] < kRestEnough * rests.truth;
      }
      if (static_cast<double>(low) <= kRestsLow * static_cast<double>(rests_.size())) {
        return kWideNorms[w];
      }
    }
    return 1.0f;
  }

  float RestFactor() {
    if (rest_factors_.empty()) return 1;
    const auto at =
        rest_factors_.begin() +
        static_cast<std::ptrdiff_t>(kRestQuantile * static_cast<double>(rest_factors_.size() - 1));
    std::nth_element(rest_factors_.begin(), at, rest_factors_.end());
    return static_cast<float>(std::clamp(*at, 1.0, kRestFactorMax));
  }

  // Walks for smaller and smaller errors, until one takes longer than an exact scan: returns for
  // which error. A walk for a group of queries takes somewhat less than one for each.
  float MeasureWalks(const IndexedPart& fitted) {
    const double exact = Median(exact_seconds_);
    const double group = 1 + kGroupCost * (part_.shape.group - 1.0);
    std::vector<double> seconds;
    for (const double error : kErrorsAsked) {
      seconds.clear();
      for (size_t i = 0; i < count_; ++i) {
        const double start = ThreadSeconds();
        MeasureAsked(fitted, i, error);
        seconds.push_back(ThreadSeconds() - start);
      }
      if (group * Median(seconds) >= exact) return static_cast<float>(error);
    }
    return 0;
  }

  // The answer when everything is known at one level and nothing below it.
  void MeasureLevel(const IndexedPart& fitted, size_t i, size_t level) {
    Prepare(i);
    ReadStatistics read;
    DescentState& state = scratch_.descent;
    Descent descent(fitted, {.queries = scratch_.queries, .range = range_}, state, read);
    descent.Begin();
    state.other_log_mass.assign(1, kEmptyLogSumExp);
    descent.UpdateTotals();
    descent.WeighDoubts();
    if (level != kSuperClusterDoubt) descent.ReadLevel(level == kRowDoubt);
    descent.UpdateTotals();
    AddDescent(fitted, scratch_.queries, state, scratch_.accumulators, scratch_.answer, read);
    AddSample(i, state.doubt[0], state.scale[0]);
  }

  // How much more the rest of query i holds than is estimated.
  void AddRestFactor(size_t i) {
    const double total = scratch_.descent.log_total[0], exact = scratch_.descent.exact_mass[0];
    const double rest = scratch_.descent.wide_factor[0] * (1 - exact);
    if (rest < kRestMin) return;
    rest_factors_.push_back((std::exp(exact_log_sums_[i] - total) - exact) / rest);
  }

  void MeasureAsked(const IndexedPart& fitted, size_t i, double error) {
    Prepare(i);
    ReadStatistics read;
    AttendIndexed(fitted, range_, {SelectionGoal::kMaxError, error}, absl::InfiniteFuture(),
                  scratch_, read);
    AddSample(i, scratch_.descent.doubt[0], scratch_.descent.scale[0]);
    samples_.back().asked = error;
  }

  void MeasureCoverage(const IndexedPart& fitted, size_t i) {
    Prepare(i);
    ReadStatistics read;
    AttendIndexed(fitted, range_, {SelectionGoal::kCoverage, kCoverageAsked},
                  absl::InfiniteFuture(), scratch_, read);
    AddRestFactor(i);
  }

  const IndexedPart& part_;
  const size_t head_dim_, value_dim_;
  const PositionRange range_;
  const std::vector<float> queries_;  // times the logit scale
  const size_t count_;
  std::vector<float> exact_;  // (count, value_dim)
  std::vector<float> exact_log_sums_;
  std::vector<float> output_;
  SearchScratch scratch_;
  std::vector<ErrorSample> samples_;
  double hidden_mass_ = 0;
  struct Rests {
    double truth = 0;
    std::array<double, std::size(kWideNorms)> estimated = {};
  };
  std::vector<Rests> rests_;
  std::vector<double> rest_factors_;
  std::vector<double> exact_seconds_;  // of a group of queries
};

}  // namespace

Calibration Calibrate(const IndexedPart& part, std::span<const float> queries) {
  const size_t dim = part.shape.head_dim;
  const size_t count = queries.size() / dim, taken = std::min(count, kQueries);
  std::vector<float> some;
  for (size_t i = 0; i < taken; ++i) {
    const std::span<const float> query = queries.subspan(i * count / taken * dim, dim);
    for (const float x : query) some.push_back(x * part.shape.logit_scale);
  }
  if (some.empty() || part.segments.empty()) return part.calibration;
  return Calibrator(part, std::move(some)).Run(ErrorModel());
}

}  // namespace attic
