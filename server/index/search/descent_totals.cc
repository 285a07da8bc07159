#include <algorithm>
#include <cmath>

#include "attention/partial_attention.h"
#include "attention/vector_kernels.h"
#include "server/index/search/descent.h"
#include "server/index/search/fast_sum.h"
#include "server/index/search/row_kernels.h"

namespace attic {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
// An output is not taken for shorter than this share of an ordinary value.
constexpr double kOutputSquareMin = 1e-3;
constexpr float kRowVarianceMax = 20.0f;  // rows of which a code says less have no weight
// Masses may exceed exp(reference) by this before everything is put in other terms: squares stay
// finite.
constexpr float kReferenceSlack = 20.0f;

// What masses with the variance of keys may exceed exp(reference) by.
constexpr float kWideMax = 30.0f;

// What holds less than this of the mass cannot be seen in an answer.
constexpr double kUnseenShare = 1e-9;
constexpr float kLogUnseenShare = -20.7f;

void Scale(float factor, std::span<float> x) {
  for (float& element : x) element *= factor;
}

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
    largest = std::max(largest, part_.calibration.errors.Bound(doubts));
  }
  return largest;
}

void Descent::UpdateTotals() {
  if (s_.reference.empty()) SetReference();
  s_.log_total.resize(group_);
  s_.doubt.assign(group_, LevelDoubts{});
  s_.exact_mass.assign(group_, 0.0);
  s_.wide_factor.assign(group_, 1.0);
  s_.exact_share.assign(group_, 0.0);
  for (size_t g = 0; g < group_; ++g) AddTotals(g);
  UpdateSuperRatios();
}

void Descent::SetReference() {
  s_.super_mass = s_.super_log_mass;
  s_.super_doubt.assign(group_ * super_count_, 0.0f);
  if (masses_are_narrow()) s_.super_wide_mass.assign(group_ * super_count_, 0.0f);
  for (size_t g = 0; g < group_; ++g) {
    const std::span<float> mass(s_.super_mass.data() + g * super_count_, super_count_);
    for (size_t i = 0; i < super_count_; ++i) {
      if (s_.super_state[i] != SuperState::kWhole) mass[i] = kNegativeInfinity;
    }
    const float peak = std::max(MaxElement(mass), s_.other_log_mass[g]);
    s_.reference.push_back(peak == kNegativeInfinity ? 0.0f : peak);
    ExpInPlace(s_.reference[g], mass);
  }
  for (const OpenedSuper& open : s_.opened) WeighClusters(open);
}

void Descent::WeighDoubts() {
  s_.doubts_known = true;
  for (size_t g = 0; g < group_; ++g) {
    if (masses_are_narrow()) WidenSuperMass(g);
    float* doubt = s_.super_doubt.data() + g * super_count_;
    EstimateDoubt(s_.super_logits.data() + g * super_count_, part_.super_sums(),
                  s_.super_doubt_norms[g], s_.reference[g], *part_.terms,
                  part_.terms->super_clusters, doubt);
    for (size_t i = 0; i < super_count_; ++i) {
      if (s_.super_state[i] != SuperState::kWhole) doubt[i] = 0;
    }
  }
  for (const OpenedSuper& open : s_.opened) WeighClusters(open);
  UpdateTotals();
}

bool Descent::IsSettled() {
  const float log_count = std::log(static_cast<float>(super_count_ + 1));
  for (size_t g = 0; g < group_; ++g) {
    if (1 - s_.exact_mass[g] >= kUnseenShare) return false;
    if (!masses_are_narrow()) continue;
    s_.buffer.resize(super_count_);
    EstimateLogMass(s_.super_logits.data() + g * super_count_, part_.super_sums(),
                    s_.super_doubt_norms[g], s_.buffer.data());
    const float most = MaxElement(s_.buffer) + log_count - s_.log_total[g];
    if (most >= kLogUnseenShare) return false;
  }
  return true;
}

void Descent::WidenSuperMass(size_t g) {
  s_.super_wide_mass.resize(group_ * super_count_);
  const std::span<float> wide(s_.super_wide_mass.data() + g * super_count_, super_count_);
  EstimateLogMass(s_.super_logits.data() + g * super_count_, part_.super_sums(),
                  s_.super_doubt_norms[g], wide.data());
  for (size_t i = 0; i < super_count_; ++i) {
    wide[i] = s_.super_state[i] == SuperState::kWhole
                  ? std::min(wide[i], s_.reference[g] + kWideMax)
                  : kNegativeInfinity;
  }
  ExpInPlace(s_.reference[g], wide);
}

void Descent::WidenClusterMass(const OpenedSuper& open, size_t g) {
  const size_t local = open.first_node % part_.clusters_per_segment;
  s_.cluster_wide_mass.resize(s_.cluster_mass.size());
  const std::span<float> wide(s_.cluster_wide_mass.data() + group_ * open.offset + g * open.count,
                              open.count);
  EstimateLogMass(ClusterLogits(open, g),
                  GroupSums::Of(SegmentOf(open).clusters, local, open.count),
                  s_.cluster_doubt_norms[g], wide.data());
  for (float& log_mass : wide) log_mass = std::min(log_mass, s_.reference[g] + kWideMax);
  ExpInPlace(s_.reference[g], wide);
  for (size_t i = 0; i < open.count; ++i) {
    if (s_.cluster_state[open.offset + i] != ClusterState::kEstimated) wide[i] = 0;
  }
}

void Descent::RaiseReference(size_t g, float logit) {
  if (!(logit > s_.reference[g] + kReferenceSlack)) return;
  const double factor = std::exp(double{s_.reference[g]} - logit);
  const auto mass_factor = static_cast<float>(factor);
  const auto doubt_factor = static_cast<float>(factor * factor);
  s_.reference[g] = logit;
  Scale(mass_factor, {s_.super_mass.data() + g * super_count_, super_count_});
  Scale(doubt_factor, {s_.super_doubt.data() + g * super_count_, super_count_});
  if (masses_are_narrow()) {
    Scale(mass_factor, {s_.super_wide_mass.data() + g * super_count_, super_count_});
  }
  for (const OpenedSuper& open : s_.opened) {
    const size_t begin = group_ * open.offset + g * open.count;
    if (begin + open.count > s_.cluster_mass.size()) continue;  // being opened
    Scale(mass_factor, {s_.cluster_mass.data() + begin, open.count});
    Scale(doubt_factor, {s_.cluster_doubt.data() + begin, open.count});
    if (masses_are_narrow()) Scale(mass_factor, {s_.cluster_wide_mass.data() + begin, open.count});
  }
  for (size_t i = g; i < s_.row_totals.size(); i += group_) {
    RowTotals& totals = s_.row_totals[i];
    totals.best_mass *= mass_factor;
    totals.rest *= mass_factor;
    totals.exact *= mass_factor;
    totals.rest_squares *= doubt_factor;
    totals.exact_squares *= doubt_factor;
  }
  for (const CodedCluster& coded : s_.coded) {
    Scale(mass_factor, {s_.row_mass.data() + group_ * coded.offset + g * coded.rows, coded.rows});
  }
}

// Masses and doubts of the clusters of a super-cluster just opened.
void Descent::WeighClusters(const OpenedSuper& open) {
  const size_t begin = group_ * open.offset, local = open.first_node % part_.clusters_per_segment;
  for (size_t g = 0; g < group_; ++g) {
    RaiseReference(g, MaxElement({ClusterLogMass(open, g), open.count}));
  }
  s_.cluster_mass.resize(std::max(s_.cluster_mass.size(), begin + group_ * open.count));
  s_.cluster_doubt.resize(s_.cluster_mass.size());
  if (masses_are_narrow()) s_.cluster_wide_mass.resize(s_.cluster_mass.size());
  for (size_t g = 0; g < group_; ++g) {
    if (masses_are_narrow() && s_.doubts_known) WidenClusterMass(open, g);
    float* mass = s_.cluster_mass.data() + begin + g * open.count;
    float* doubt = s_.cluster_doubt.data() + begin + g * open.count;
    std::copy_n(ClusterLogMass(open, g), open.count, mass);
    if (s_.doubts_known) {
      EstimateDoubt(
          ClusterLogits(open, g), GroupSums::Of(SegmentOf(open).clusters, local, open.count),
          s_.cluster_doubt_norms[g], s_.reference[g], *part_.terms, part_.terms->clusters, doubt);
    }
    ExpInPlace(s_.reference[g], {mass, open.count});
    for (size_t i = 0; i < open.count; ++i) {
      if (s_.cluster_state[open.offset + i] != ClusterState::kEstimated) mass[i] = doubt[i] = 0;
    }
  }
}

// The sums of a cluster some of whose rows have become exact.
void Descent::SumRowsAgain(uint32_t index) {
  const CodedCluster& coded = s_.coded[index];
  for (size_t g = 0; g < group_; ++g) {
    const size_t begin = RowsBegin(coded, g);
    const RowSums sums = SumRows(s_.row_logits.data() + begin, s_.row_mass.data() + begin,
                                 s_.row_exact.data() + coded.offset, coded.rows);
    RowTotals& totals = s_.row_totals[index * group_ + g];
    totals.best_rest = sums.best_rest;
    totals.best_mass = sums.best_mass;
    totals.rest = sums.rest;
    totals.rest_squares = sums.rest_squares;
    totals.exact = sums.exact;
    totals.exact_squares = sums.exact_squares;
  }
}

double Descent::ConservativeShare(size_t g, double exact_mass) const {
  const double rest = part_.calibration.rest_factor * s_.wide_factor[g] * (1 - exact_mass);
  return exact_mass / std::max(exact_mass + rest, std::numeric_limits<double>::min());
}

void Descent::AddTotals(size_t g) {
  double exact = std::exp(double{s_.other_log_mass[g]} - s_.reference[g]), exact_squares = 0;
  double rest = FastSum({s_.super_mass.data() + g * super_count_, super_count_});
  double cluster_doubt = 0, row_doubt = 0, wide = 0, rows = 0;
  if (masses_are_narrow())
    wide = FastSum({s_.super_wide_mass.data() + g * super_count_, super_count_});
  for (const OpenedSuper& open : s_.opened) {
    const size_t begin = group_ * open.offset + g * open.count;
    rest += FastSum({s_.cluster_mass.data() + begin, open.count});
    if (masses_are_narrow()) wide += FastSum({s_.cluster_wide_mass.data() + begin, open.count});
    cluster_doubt += FastSum({s_.cluster_doubt.data() + begin, open.count});
  }
  for (size_t i = g; i < s_.row_totals.size(); i += group_) {
    const RowTotals& totals = s_.row_totals[i];
    rows += totals.rest;
    exact += totals.exact;
    exact_squares += totals.exact_squares;
    row_doubt += totals.rest_squares * double{totals.mean_doubt};
  }
  rest += rows;
  const double total = rest + exact;
  s_.log_total[g] =
      total > 0 ? s_.reference[g] + static_cast<float>(std::log(total)) : kNegativeInfinity;
  if (!(total > 0)) return;
  s_.exact_mass[g] = exact / total;
  s_.wide_factor[g] = rest > 0 ? std::max(1.0, (wide + rows) / rest) : 1.0;
  s_.exact_share[g] = ConservativeShare(g, s_.exact_mass[g]);
  UpdateScale(g, exact_squares / (total * total));
  const double factor = s_.scale[g] / (total * total);
  s_.doubt[g][kSuperClusterDoubt] =
      factor * FastSum({s_.super_doubt.data() + g * super_count_, super_count_});
  s_.doubt[g][kClusterDoubt] = factor * cluster_doubt;
  s_.doubt[g][kRowDoubt] = factor * row_doubt;
}

// The exact part and the rest each look like the super-clusters' output, in different directions;
// values of exact rows differ from it independently.
void Descent::UpdateScale(size_t g, double exact_squares) {
  const double variance = std::max<double>(part_.terms->value_variance, 1e-20);
  const double exact = std::min(1.0, s_.exact_mass[g]), rest = 1.0 - exact;
  const double square =
      (rest * rest + exact * exact) * s_.coarse_square[g] + exact_squares * variance;
  s_.scale[g] = static_cast<float>(1.0 / std::max(square, kOutputSquareMin * variance));
}

// What a doubt relative to exp(2 reference) is worth, so that the errors of all levels compare.
float Descent::DoubtFactor(size_t g, DoubtLevel level) const {
  const double shift = 2 * (double{s_.reference[g]} - s_.log_total[g]);
  return static_cast<float>(part_.calibration.errors.weight[level] * s_.scale[g] * std::exp(shift));
}

void Descent::UpdateSuperRatios() {
  s_.super_ratio.assign(super_count_, 0.0f);
  for (size_t g = 0; g < group_; ++g) {
    if (s_.log_total[g] == kNegativeInfinity) continue;
    const auto factor = static_cast<float>(DoubtFactor(g, kSuperClusterDoubt) / OpeningBytes());
    const float* doubt = s_.super_doubt.data() + g * super_count_;
    for (size_t i = 0; i < super_count_; ++i) {
      s_.super_ratio[i] = std::max(s_.super_ratio[i], doubt[i] * factor);
    }
  }
}

}  // namespace attic
