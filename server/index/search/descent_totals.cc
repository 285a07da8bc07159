#include <algorithm>
#include <cmath>

#include "attention/partial_attention.h"
#include "attention/vector_kernels.h"
#include "server/index/search/descent.h"

namespace attic {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
// An output is not taken for shorter than this share of an ordinary value.
constexpr double kOutputSquareMin = 1e-3;
constexpr float kRowVarianceMax = 20.0f;  // rows of which a code says less have no weight

}  // namespace

// With v the variance of the row's logit, as the code leaves it.
float Descent::RowDoubt(float variance) const {
  const EstimateTerms& terms = *part_.terms;
  const float v = std::min(variance, kRowVarianceMax);
  const float doubt =
      std::expm1(v) * terms.value_variance + std::exp(v) * terms.clusters.value_residual;
  return std::max(doubt, std::numeric_limits<float>::min());
}

double Descent::SquaredError() const {
  double largest = 0;
  for (const LevelDoubts& doubts : s_.doubt) {
    largest = std::max(largest, part_.errors.Bound(doubts));
  }
  return largest;
}

void Descent::UpdateTotals() {
  s_.log_total.resize(group_);
  s_.doubt.assign(group_, LevelDoubts{});
  s_.exact_share.assign(group_, 0.0);
  for (size_t g = 0; g < group_; ++g) {
    ListLogMasses(g);
    const float peak = MaxElement(s_.buffer);
    const float sum = peak == kNegativeInfinity ? 0.0f : ExpInPlace(peak, s_.buffer);
    const float log_rest = sum > 0 ? peak + std::log(sum) : kNegativeInfinity;
    s_.log_total[g] = LogAddExp(s_.other_log_mass[g], log_rest);
    if (s_.log_total[g] == kNegativeInfinity) continue;
    s_.exact_share[g] = std::exp(double{s_.other_log_mass[g]} - s_.log_total[g]);
    AddRowTotals(g, peak == kNegativeInfinity ? 0.0 : std::exp(double{peak} - s_.log_total[g]));
    AddClusterDoubt(g);
  }
  UpdateSuperRatios();
}

// buffer: log masses of all super-clusters, of the clusters of opened ones, of rows of coded ones.
void Descent::ListLogMasses(size_t g) {
  const float* super_mass = s_.super_log_mass.data() + g * super_count_;
  s_.buffer.assign(super_mass, super_mass + super_count_);
  for (size_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] != SuperState::kWhole) s_.buffer[i] = kNegativeInfinity;
  }
  for (const OpenedSuper& open : s_.opened) {
    const float* mass = ClusterLogMass(open, g);
    for (size_t i = 0; i < open.count; ++i) {
      const bool counts = s_.cluster_state[open.offset + i] == ClusterState::kEstimated;
      s_.buffer.push_back(counts ? mass[i] : kNegativeInfinity);
    }
  }
  for (const CodedCluster& coded : s_.coded) {
    const float* logits = RowLogits(coded, g);
    s_.buffer.insert(s_.buffer.end(), logits, logits + coded.rows);
  }
}

// The rows' masses, at the end of buffer, are shares when multiplied by `factor`.
void Descent::AddRowTotals(size_t g, double factor) {
  const float* mass = s_.buffer.data() + (s_.buffer.size() - s_.row_exact.size());
  double exact_squares = 0, row_doubt = 0;
  for (const CodedCluster& coded : s_.coded) {
    double exact = 0, squares = 0;
    for (size_t i = 0; i < coded.rows; ++i) {
      const float m = mass[coded.offset + i];
      if (s_.row_exact[coded.offset + i] != 0) {
        exact += m;
        exact_squares += double{m} * m;
      } else {
        squares += m * m;
      }
    }
    s_.exact_share[g] += factor * exact;
    if (squares > 0) {
      const float variance = s_.residual_queries[g].variance * coded.factor_square;
      row_doubt += squares * factor * factor * RowDoubt(variance);
    }
  }
  UpdateScale(g, exact_squares * factor * factor);
  s_.doubt[g][kRowDoubt] = s_.scale[g] * row_doubt;
}

// The exact part and the rest each look like the super-clusters' output, in different directions;
// values of exact rows differ from it independently.
void Descent::UpdateScale(size_t g, double exact_squares) {
  const double variance = std::max<double>(part_.terms->value_variance, 1e-20);
  const double exact = std::min(1.0, s_.exact_share[g]), rest = 1.0 - exact;
  const double square =
      (rest * rest + exact * exact) * s_.coarse_square[g] + exact_squares * variance;
  s_.scale[g] = static_cast<float>(1.0 / std::max(square, kOutputSquareMin * variance));
}

void Descent::AddClusterDoubt(size_t g) {
  for (const OpenedSuper& open : s_.opened) {
    const size_t local = open.first_node % part_.clusters_per_segment;
    s_.buffer.resize(open.count);
    EstimateDoubt(ClusterLogMass(open, g),
                  GroupSums::Of(SegmentOf(open).clusters, local, open.count), s_.cluster_norms[g],
                  s_.log_total[g], *part_.terms, part_.terms->clusters, s_.buffer.data());
    double sum = 0;
    for (size_t i = 0; i < open.count; ++i) {
      if (s_.cluster_state[open.offset + i] == ClusterState::kEstimated) sum += s_.buffer[i];
    }
    s_.doubt[g][kClusterDoubt] += s_.scale[g] * sum;
  }
}

void Descent::UpdateSuperRatios() {
  s_.super_ratio.assign(super_count_, 0.0f);
  s_.buffer.resize(super_count_);
  for (size_t g = 0; g < group_; ++g) {
    EstimateDoubt(s_.super_log_mass.data() + g * super_count_, part_.super_sums(),
                  s_.super_norms[g], s_.log_total[g], *part_.terms, part_.terms->super_clusters,
                  s_.buffer.data());
    double sum = 0;
    for (size_t i = 0; i < super_count_; ++i) {
      if (s_.super_state[i] != SuperState::kWhole) continue;
      const float doubt = s_.buffer[i] * s_.scale[g];
      sum += doubt;
      s_.super_ratio[i] = std::max(s_.super_ratio[i], doubt);
    }
    s_.doubt[g][kSuperClusterDoubt] = sum;
  }
  const auto inverse = static_cast<float>(part_.errors.bound(kSuperClusterDoubt) / OpeningBytes());
  for (float& ratio : s_.super_ratio) ratio *= inverse;
}

}  // namespace attic
