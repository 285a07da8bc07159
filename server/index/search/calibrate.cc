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
#include "base/status_macros.h"
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
constexpr double kCoverageFitted = 0.9;
constexpr double kCoveragesTried[] = {0.9, 0.5};  // falling; the first stands for all above it
constexpr double kCoverageMissing = 0.02;         // by which an answer may fall short
constexpr double kCoverageKept = 0.97;            // share of the answers that must not
constexpr double kMost = 0.95;                    // share of the walks that are judged by
constexpr int kRestRounds = 2;
constexpr size_t kCoverageStride = 2;
constexpr double kRestMin = 0.01;  // share of the mass from which on the rest is judged
constexpr double kRestQuantile = 0.95;
constexpr double kRestFactorMax = 10.0;
constexpr float kLogHiddenShare = -6.9f;
constexpr size_t kGroupsTimed = 8;
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

  absl::StatusOr<Calibration> Run(const ErrorModel& prior) {
    ATTIC_RETURN_IF_ERROR(AttendExactly());
    for (size_t i = 0; i < count_; ++i) MeasureHiddenMass(i);
    if (!failure_.ok()) return failure_;
    IndexedPart fitted = part_;
    Calibration& calibration = fitted.calibration;
    calibration = {.hidden_mass = static_cast<float>(hidden_mass_ / static_cast<double>(count_)),
                   .wide_norm = WideNorm()};
    for (size_t i = 0; i < count_; ++i) {
      for (size_t level = 0; level < kDoubtLevels; ++level) MeasureLevel(fitted, i, level);
    }
    const std::vector<ErrorSample> of_levels = std::exchange(samples_, {});
    calibration.errors = FitErrorModel(of_levels, {}, prior);
    MeasureWalks(fitted);
    if (!failure_.ok()) return failure_;
    calibration.errors = FitErrorModel(of_levels, samples_, prior);
    calibration.scan_faster_below = ScanFasterBelow(fitted);
    calibration.least_error = LeastError();
    // Going further changes what the rest is, so what was learnt is tried.
    for (int round = 0; round < kRestRounds; ++round) {
      MeasureCoverages(fitted, kCoverageFitted);
      calibration.rest_factor = std::max(calibration.rest_factor, RestFactor());
    }
    calibration.coverage_max = CoverageMax(fitted);
    if (!failure_.ok()) return failure_;
    return calibration;
  }

 private:
  std::span<const float> Query(size_t i) const {
    return {queries_.data() + i * head_dim_, head_dim_};
  }

  // Segment by segment, so that each is read once where it is on disk.
  absl::Status AttendExactly() {
    const size_t group = part_.shape.group, groups = (count_ + group - 1) / group;
    std::vector<std::vector<AttentionAccumulator>> accumulators;
    for (size_t i = 0; i < groups; ++i) {
      const size_t n = std::min(group, count_ - i * group);
      accumulators.emplace_back(n, AttentionAccumulator(value_dim_));
    }
    ScanScratch scan;
    for (const auto& segment : part_.segments) {
      if (segment->begin_position >= range_.end) break;
      ATTIC_ASSIGN_OR_RETURN(const auto arrays, segment->vectors->ArraysOrRead());
      const double start = ThreadSeconds();
      for (size_t i = 0; i < groups; ++i) {
        ScanExact(Query(i * group).data(), 1.0f, segment->key_rows(*arrays),
                  segment->value_rows(*arrays), accumulators[i], scan);
        // The others find the segment in the cache.
        if (i == 0) exact_seconds_ += ThreadSeconds() - start;
      }
    }
    for (size_t i = 0; i < count_; ++i) {
      exact_log_sums_.push_back(
          accumulators[i / group][i % group].Finish({exact_.data() + i * value_dim_, value_dim_}));
    }
    return absl::OkStatus();
  }

  // What AddDescent needs; a failure ends the calibration.
  bool Failed(const absl::Status& status) {
    failure_.Update(status);
    return !status.ok();
  }

  void Prepare(size_t first, size_t group = 1) {
    const float* queries = Query(first).data();
    scratch_.queries.assign(queries, queries + group * head_dim_);
    scratch_.accumulators.assign(group, AttentionAccumulator(value_dim_));
    scratch_.tail.Clear(group);
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
    if (Failed(descent.status())) return;
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

  // Walks for smaller and smaller errors, until they take longer than an exact scan.
  void MeasureWalks(const IndexedPart& fitted) {
    for (const double error : kErrorsAsked) {
      for (size_t i = 0; i < count_; ++i) MeasureAsked(fitted, i, error);
      if (ScanIsFaster(fitted, {SelectionGoal::kMaxError, error})) return;
    }
  }

  float ScanFasterBelow(const IndexedPart& fitted) {
    for (const double error : kErrorsAsked) {
      if (ScanIsFaster(fitted, {SelectionGoal::kMaxError, error})) return static_cast<float>(error);
    }
    return 0;
  }

  // Whether a scan takes less time than a walk, for groups of queries.
  bool ScanIsFaster(const IndexedPart& fitted, const SelectionPolicy& policy) {
    const size_t group = std::min<size_t>(part_.shape.group, count_);
    const size_t groups = std::min(kGroupsTimed, count_ / group);
    std::vector<double> seconds;
    for (size_t i = 0; i < groups; ++i) {
      const double start = ThreadSeconds();
      Prepare(i * (count_ / group) / groups * group, group);
      ReadStatistics read;
      Failed(AttendIndexed(fitted, range_, policy, absl::InfiniteFuture(), scratch_, read).status);
      seconds.push_back(ThreadSeconds() - start);
    }
    return Median(seconds) >= exact_seconds_;
  }

  // What most walks for the smallest error tried came to.
  float LeastError() const {
    std::vector<double> errors;
    for (const ErrorSample& sample : samples_) {
      if (sample.asked != samples_.back().asked) continue;
      errors.push_back(sample.squared_error / std::max(sample.square, 1e-30));
    }
    const auto at = errors.begin() +
                    static_cast<std::ptrdiff_t>(kMost * static_cast<double>(errors.size() - 1));
    std::nth_element(errors.begin(), at, errors.end());
    return static_cast<float>(std::sqrt(*at));
  }

  float CoverageMax(const IndexedPart& fitted) {
    for (const double coverage : kCoveragesTried) {
      MeasureCoverages(fitted, coverage);
      const auto missed =
          static_cast<double>(std::count_if(coverages_.begin(), coverages_.end(), [&](double c) {
            return c < coverage - kCoverageMissing;
          }));
      const bool kept = missed <= (1 - kCoverageKept) * static_cast<double>(coverages_.size());
      if (!kept || ScanIsFaster(fitted, {SelectionGoal::kCoverage, coverage})) continue;
      return coverage == kCoveragesTried[0] ? 1.0f : static_cast<float>(coverage);
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
    if (Failed(descent.status())) return;
    AddDescent(fitted, scratch_.queries, state, scratch_.accumulators, scratch_.answer, read);
    AddSample(i, state.doubt[0], state.scale[0]);
  }

  // How much more the rest of query i holds than is estimated.
  void AddRestFactor(size_t i) {
    const double total = scratch_.descent.log_total[0], exact = scratch_.descent.exact_mass[0];
    const double truth = std::exp(exact_log_sums_[i] - total);  // in terms of what is estimated
    coverages_.push_back(exact / truth);
    const double rest = scratch_.descent.wide_factor[0] * (1 - exact);
    if (rest >= kRestMin) rest_factors_.push_back((truth - exact) / rest);
  }

  void MeasureAsked(const IndexedPart& fitted, size_t i, double error) {
    Prepare(i);
    ReadStatistics read;
    Failed(AttendIndexed(fitted, range_, {SelectionGoal::kMaxError, error}, absl::InfiniteFuture(),
                         scratch_, read)
               .status);
    AddSample(i, scratch_.descent.doubt[0], scratch_.descent.scale[0]);
    samples_.back().asked = error;
  }

  void MeasureCoverages(const IndexedPart& fitted, double asked) {
    rest_factors_.clear();
    coverages_.clear();
    for (size_t i = 0; i < count_; i += kCoverageStride) {
      Prepare(i);
      ReadStatistics read;
      Failed(AttendIndexed(fitted, range_, {SelectionGoal::kCoverage, asked},
                           absl::InfiniteFuture(), scratch_, read)
                 .status);
      AddRestFactor(i);
    }
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
  std::vector<double> coverages_;  // of the walks last made, in truth
  double exact_seconds_ = 0;       // of a group of queries
  absl::Status failure_;           // the first
};

}  // namespace

absl::StatusOr<Calibration> Calibrate(const IndexedPart& part, std::span<const float> queries) {
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
