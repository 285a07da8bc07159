// From doubt to error: what errors of a head's answers were, where exact ones are known, in terms
// of what EstimateDoubt() and its likes say.
#ifndef ATTIC_SERVER_INDEX_ESTIMATE_ERROR_MODEL_H_
#define ATTIC_SERVER_INDEX_ESTIMATE_ERROR_MODEL_H_

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace attic {

// The levels of a head that leave something in doubt.
enum DoubtLevel : size_t { kSuperClusterDoubt, kClusterDoubt, kRowDoubt, kDoubtLevels };
using LevelDoubts = std::array<double, kDoubtLevels>;

struct ErrorModel {
  // Squared errors of each level are its doubt times this: rows of a group are not drawn at random,
  // and groups err in the same direction.
  std::array<float, kDoubtLevels> weight = {9.0f, 9.0f, 4.0f};
  // 99 of 100 squared errors are below the sum of weighted doubts times these.
  std::array<float, kDoubtLevels> reserve = {6.0f, 6.0f, 4.0f};
  // How bounds of some sizes turned out: squared errors stayed below `factor` times the bound where
  // it was about `bound`. Ascending by bound; factor * bound ascends too.
  struct Trial {
    double bound;
    double factor;
  };
  std::vector<Trial> trials;
  size_t samples = 0;  // exact answers it was learnt from; 0: as above, by experience

  float bound(size_t level) const { return weight[level] * reserve[level]; }
  // What a squared error is in the middle.
  double Expected(const LevelDoubts& doubts) const {
    double sum = 0;
    for (size_t level = 0; level < kDoubtLevels; ++level) sum += weight[level] * doubts[level];
    return sum;
  }
  // What it hardly exceeds, doubts relative to |output|^2.
  double Bound(const LevelDoubts& doubts) const {
    const double sum = UntriedBound(doubts);
    return sum * TrialFactor(sum);
  }

  double UntriedBound(const LevelDoubts& doubts) const {
    double sum = 0;
    for (size_t level = 0; level < kDoubtLevels; ++level) {
      sum += double{bound(level)} * doubts[level];
    }
    return sum;
  }
  // Between trials in proportion of logarithms, beyond them as at the last.
  double TrialFactor(double bound) const;
};

// One answer whose exact counterpart is known.
struct ErrorSample {
  double squared_error = 0;  // of the output, in the units of doubts
  double square = 0;         // |output|^2
  LevelDoubts doubts = {};
  double asked = 0;  // the error at which the walk was to stop
};

// Learns weights from answers given at one level, and reserves from answers that stopped where an
// error was asked for: what a walk leaves is not what it found. Each level learns from the samples
// in which it holds most of the doubt; with too few it stays as it is in `prior`. Walks for the
// same error make one trial.
ErrorModel FitErrorModel(std::span<const ErrorSample> of_levels,
                         std::span<const ErrorSample> of_walks, const ErrorModel& prior);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATE_ERROR_MODEL_H_
