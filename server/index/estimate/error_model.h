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
  // How expectations of some sizes turned out: 99 of 100 squared errors stayed below `factor` times
  // the expected one where that was about `expected`. Ascending; factor * expected ascends too.
  struct Trial {
    double expected;
    double factor;
  };
  std::vector<Trial> trials;
  size_t samples = 0;  // exact answers it was learnt from; 0: as above, by experience

  // What a squared error is in the middle.
  double Expected(const LevelDoubts& doubts) const {
    double sum = 0;
    for (size_t level = 0; level < kDoubtLevels; ++level) sum += weight[level] * doubts[level];
    return sum;
  }
  // What it hardly exceeds, doubts relative to |output|^2.
  double Bound(const LevelDoubts& doubts) const {
    const double expected = Expected(doubts);
    return expected * TrialFactor(expected);
  }
  // Between trials in proportion of logarithms, beyond them as at the last; without any, by
  // experience.
  double TrialFactor(double expected) const;
};

// One answer whose exact counterpart is known.
struct ErrorSample {
  double squared_error = 0;  // of the output, in the units of doubts
  double square = 0;         // |output|^2
  LevelDoubts doubts = {};
  double asked = 0;  // the error at which the walk was to stop
};

// Learns weights from answers given at one level, and trials from answers that stopped where an
// error was asked for: what a walk leaves is not what it found. Each level learns from the samples
// in which it holds most of the doubt; with too few it stays as it is in `prior`. Walks for the
// same error, one after the other in `of_walks`, make one trial.
ErrorModel FitErrorModel(std::span<const ErrorSample> of_levels,
                         std::span<const ErrorSample> of_walks, const ErrorModel& prior);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATE_ERROR_MODEL_H_
