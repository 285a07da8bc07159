#include "server/index/estimate/error_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace attic {
namespace {

constexpr size_t kSamplesMin = 8;
constexpr double kAlone = 0.8;  // share of the doubt that makes a level the one responsible
constexpr double kPromise = 0.99;
// A quantile of few samples lies below the true one.
constexpr double kReserve = 1.2;
constexpr double kWeightMin = 0.01;
constexpr double kUntriedFactor = 6;
constexpr double kFactorMin = 0.05;
constexpr double kFactorMax = 1e4;
// Of |output|^2: what rounding does says nothing about doubts.
constexpr double kSquaredErrorMin = 1e-6;

double QuantileInPlace(std::vector<double>& x, double share) {
  std::sort(x.begin(), x.end());
  const auto at = static_cast<size_t>(std::ceil(share * static_cast<double>(x.size())));
  return x[std::clamp<size_t>(at, 1, x.size()) - 1];
}

// What became of walks that stopped at the same error.
bool TryExpectations(std::span<const ErrorSample> walks, const ErrorModel& model,
                     ErrorModel::Trial& trial) {
  std::vector<double> expectations, ratios;
  for (const ErrorSample& sample : walks) {
    const double expected = model.Expected(sample.doubts);
    if (!(sample.square > 0) || expected <= kSquaredErrorMin * sample.square) continue;
    expectations.push_back(expected / sample.square);
    ratios.push_back(sample.squared_error / expected);
  }
  if (ratios.size() < kSamplesMin) return false;
  trial.expected = QuantileInPlace(expectations, 0.5);
  trial.factor = std::clamp(kReserve * QuantileInPlace(ratios, kPromise), kFactorMin, kFactorMax);
  return true;
}

std::vector<ErrorModel::Trial> MakeTrials(std::span<const ErrorSample> of_walks,
                                          const ErrorModel& model) {
  std::vector<ErrorModel::Trial> trials;
  for (size_t begin = 0; begin < of_walks.size();) {
    size_t end = begin + 1;
    while (end < of_walks.size() && of_walks[end].asked == of_walks[begin].asked) ++end;
    ErrorModel::Trial trial;
    if (TryExpectations(of_walks.subspan(begin, end - begin), model, trial)) {
      trials.push_back(trial);
    }
    begin = end;
  }
  std::sort(trials.begin(), trials.end(),
            [](const auto& a, const auto& b) { return a.expected < b.expected; });
  for (size_t i = 1; i < trials.size(); ++i) {
    const double least = trials[i - 1].factor * trials[i - 1].expected / trials[i].expected;
    trials[i].factor = std::max(trials[i].factor, least);
  }
  return trials;
}

}  // namespace

double ErrorModel::TrialFactor(double expected) const {
  if (trials.empty()) return kUntriedFactor;
  const auto above = std::lower_bound(trials.begin(), trials.end(), expected,
                                      [](const Trial& t, double e) { return t.expected < e; });
  if (above == trials.begin()) return trials.front().factor;
  if (above == trials.end()) return trials.back().factor;
  const Trial& below = *(above - 1);
  const double way =
      std::log(expected / below.expected) / std::log(above->expected / below.expected);
  return below.factor * std::pow(above->factor / below.factor, way);
}

ErrorModel FitErrorModel(std::span<const ErrorSample> of_levels,
                         std::span<const ErrorSample> of_walks, const ErrorModel& prior) {
  ErrorModel model = prior;
  model.samples = of_walks.size();
  std::vector<double> ratios;
  for (size_t level = 0; level < kDoubtLevels; ++level) {
    ratios.clear();
    for (const ErrorSample& sample : of_levels) {
      const double own = model.weight[level] * sample.doubts[level];
      if (own < kSquaredErrorMin * sample.square || own < kAlone * model.Expected(sample.doubts))
        continue;
      ratios.push_back(sample.squared_error / sample.doubts[level]);
    }
    if (ratios.size() < kSamplesMin) continue;
    model.weight[level] = static_cast<float>(std::max(QuantileInPlace(ratios, 0.5), kWeightMin));
  }
  model.trials = MakeTrials(of_walks, model);
  return model;
}

}  // namespace attic
