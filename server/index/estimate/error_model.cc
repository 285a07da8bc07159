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
constexpr double kMost = 0.4;
constexpr double kWeightMin = 0.01;
constexpr double kReserveMin = 0.05;
// Of |output|^2: what rounding does says nothing about doubts.
constexpr double kSquaredErrorMin = 1e-6;

double QuantileInPlace(std::vector<double>& x, double share) {
  std::sort(x.begin(), x.end());
  const auto at = static_cast<size_t>(std::ceil(share * static_cast<double>(x.size())));
  return x[std::clamp<size_t>(at, 1, x.size()) - 1];
}

}  // namespace

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
  for (size_t level = 0; level < kDoubtLevels; ++level) {
    ratios.clear();
    for (const ErrorSample& sample : of_walks) {
      const double expected = model.Expected(sample.doubts);
      if (expected <= kSquaredErrorMin * sample.square) continue;
      if (model.weight[level] * sample.doubts[level] < kMost * expected) continue;
      ratios.push_back(sample.squared_error / expected);
    }
    if (ratios.size() < kSamplesMin) continue;
    const double bound = kReserve * QuantileInPlace(ratios, kPromise);
    model.reserve[level] = static_cast<float>(std::max(bound, kReserveMin));
  }
  return model;
}

}  // namespace attic
