#include "server/index/search/calibration.h"

#include <algorithm>
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

constexpr size_t kQueries = 32;
constexpr size_t kQueriesTogether = 8;  // in one exact scan
constexpr float kLogHiddenShare = -6.9f;
constexpr double kErrorsAsked[] = {0.4, 0.2, 0.1, 0.05, 0.02};

class Calibrator {
 public:
  Calibrator(const IndexedPart& part, std::vector<float> queries)
      : part_(part),
        head_dim_(part.shape.head_dim),
        value_dim_(part.shape.value_dim),
        queries_(std::move(queries)),
        count_(queries_.size() / head_dim_),
        exact_(count_ * value_dim_),
        output_(value_dim_),
        scratch_(nullptr) {}

  Calibration Run(const ErrorModel& prior) {
    AttendExactly();
    for (size_t i = 0; i < count_; ++i) {
      for (size_t level = 0; level < kDoubtLevels; ++level) MeasureLevel(i, level);
      MeasureHiddenMass(i);
    }
    IndexedPart fitted = part_;
    const std::vector<ErrorSample> of_levels = std::exchange(samples_, {});
    fitted.errors = FitErrorModel(of_levels, {}, prior);
    for (size_t i = 0; i < count_; ++i) {
      for (const double error : kErrorsAsked) MeasureAsked(fitted, i, error);
    }
    return {FitErrorModel(of_levels, samples_, prior),
            static_cast<float>(hidden_mass_ / static_cast<double>(count_))};
  }

 private:
  std::span<const float> Query(size_t i) const {
    return {queries_.data() + i * head_dim_, head_dim_};
  }

  void AttendExactly() {
    std::vector<AttentionAccumulator> accumulators;
    ScanScratch scan;
    for (size_t begin = 0; begin < count_; begin += kQueriesTogether) {
      const size_t n = std::min(kQueriesTogether, count_ - begin);
      accumulators.assign(n, AttentionAccumulator(value_dim_));
      for (const auto& segment : part_.segments) {
        ScanExact(Query(begin).data(), 1.0f, segment->key_rows(), segment->value_rows(),
                  accumulators, scan);
      }
      for (size_t i = 0; i < n; ++i) {
        accumulators[i].Finish({exact_.data() + (begin + i) * value_dim_, value_dim_});
      }
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
    Descent descent(part_, {.queries = scratch_.queries, .range = {}}, scratch_.descent, read);
    descent.Begin();
    scratch_.descent.other_log_mass.assign(1, kEmptyLogSumExp);
    descent.UpdateTotals();
    descent.FindHiddenKeys(kLogHiddenShare, std::numeric_limits<double>::infinity());
    descent.UpdateTotals();
    hidden_mass_ += scratch_.descent.exact_share[0];
  }

  // The answer when everything is known at one level and nothing below it.
  void MeasureLevel(size_t i, size_t level) {
    Prepare(i);
    ReadStatistics read;
    DescentState& state = scratch_.descent;
    Descent descent(part_, {.queries = scratch_.queries, .range = {}}, state, read);
    descent.Begin();
    state.other_log_mass.assign(1, kEmptyLogSumExp);
    descent.UpdateTotals();
    if (level != kSuperClusterDoubt) descent.ReadLevel(level == kRowDoubt);
    descent.UpdateTotals();
    AddDescent(part_, scratch_.queries, state, scratch_.accumulators, scratch_.answer, read);
    AddSample(i, state.doubt[0], state.scale[0]);
  }

  void MeasureAsked(const IndexedPart& fitted, size_t i, double error) {
    Prepare(i);
    ReadStatistics read;
    AttendIndexed(fitted, {}, {SelectionGoal::kMaxError, error}, absl::InfiniteFuture(), scratch_,
                  read);
    AddSample(i, scratch_.descent.doubt[0], scratch_.descent.scale[0]);
  }

  const IndexedPart& part_;
  const size_t head_dim_, value_dim_;
  const std::vector<float> queries_;  // times the logit scale
  const size_t count_;
  std::vector<float> exact_;  // (count, value_dim)
  std::vector<float> output_;
  SearchScratch scratch_;
  std::vector<ErrorSample> samples_;
  double hidden_mass_ = 0;
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
  if (some.empty() || part.segments.empty()) return {part.errors, part.hidden_mass};
  return Calibrator(part, std::move(some)).Run(ErrorModel());
}

}  // namespace attic
