#include "server/index/estimate/pooled_terms.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attention/vector_kernels.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/index/estimate/least_squares.h"

namespace attic {
namespace {

constexpr size_t kMeasuredQueries = 8;
constexpr size_t kExactClustersDivisor = 64;  // one cluster in so many counts as exact
constexpr double kRidge = 1e-4;               // of the mean variance
constexpr double kErrorMax = 1.0;             // of one query, so that none decides alone
constexpr double kGoneMax = 0.125;            // share of the segments added that may be gone

float VarianceShare(size_t combination) {
  return kVarianceShares[combination % std::size(kVarianceShares)];
}
bool HasFirstOrder(size_t combination) { return combination >= std::size(kVarianceShares); }

template <typename T>
std::vector<float> Divide(const std::vector<T>& sums, double scatter) {
  std::vector<float> matrix(sums.size());
  if (scatter <= 0) return matrix;
  for (size_t i = 0; i < sums.size(); ++i) matrix[i] = static_cast<float>(sums[i] / scatter);
  return matrix;
}

// The attention of one query over one segment: exactly, and by estimate.
class SegmentTrial {
 public:
  SegmentTrial(const Segment& segment, const VectorArrays& arrays, const LevelTerms& terms,
               std::vector<float> query)
      : segment_(segment),
        arrays_(arrays),
        query_(std::move(query)),
        terms_(terms),
        weights_(segment.tokens),
        logits_(segment.clusters.count),
        direction_(segment.value_dim),
        exact_part_(segment.value_dim),
        exact_(segment.value_dim) {
    ScoreVectors(query_.data(), 1, segment.key_rows(arrays), weights_.data());
    const VectorsView centroids{segment.clusters.centroids.data(), ElementType::kBFloat16,
                                segment.clusters.count, segment.head_dim};
    ScoreVectors(query_.data(), 1, centroids, logits_.data());
    shift_ = MaxElement(weights_);
    exact_mass_ = ExpInPlace(shift_, weights_);
    FirstOrderDirection(terms.first_order, query_, direction_);
    AddWeightedVectors(weights_.data(), 1, segment.value_rows(arrays), exact_.data());
    ChooseExact();
  }

  // Squared relative error of the output plus squared error of the log_sum_exp.
  double Error(size_t combination) const {
    const ClusterSums& sums = segment_.clusters;
    std::vector<float> mass(sums.count);
    const float norm = VarianceShare(combination) * DeviationNorm(terms_, query_);
    EstimateLogMass(logits_.data(), GroupSums::Of(sums, 0, sums.count), norm, mass.data());
    for (size_t c = 0; c < sums.count; ++c) {
      mass[c] = is_exact_[c] ? 0.0f : std::exp(std::min(mass[c] - shift_, 80.0f));
    }
    const double total = std::accumulate(mass.begin(), mass.end(), double{exact_part_mass_});
    std::vector<float> numerator = exact_part_;
    const VectorsView means{sums.mean_values.data(), ElementType::kBFloat16, sums.count,
                            segment_.value_dim};
    AddWeightedVectors(mass.data(), 1, means, numerator.data());
    if (HasFirstOrder(combination)) {
      const float spread = SpreadMass(mass.data(), GroupSums::Of(sums, 0, sums.count), norm);
      AddScaled(spread, direction_.data(), direction_.size(), numerator.data());
    }
    double difference = 0, length = 1e-30;
    for (size_t i = 0; i < exact_.size(); ++i) {
      const double exact = exact_[i] / exact_mass_;
      difference += (numerator[i] / total - exact) * (numerator[i] / total - exact);
      length += exact * exact;
    }
    const double log_error = std::log(total / exact_mass_);
    const double error = difference / length + log_error * log_error;
    return std::isfinite(error) ? std::min(error, kErrorMax) : kErrorMax;
  }

 private:
  void ChooseExact() {
    const ClusterSums& sums = segment_.clusters;
    std::vector<uint32_t> order(sums.count);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return logits_[a] + sums.log_count[a] > logits_[b] + sums.log_count[b];
    });
    is_exact_.assign(sums.count, false);
    for (size_t i = 0; i < sums.count / kExactClustersDivisor; ++i) {
      const size_t begin = sums.row_begin[order[i]], n = sums.rows(order[i]);
      is_exact_[order[i]] = true;
      AddWeightedVectors(weights_.data() + begin, 1, segment_.value_rows(arrays_).rows(begin, n),
                         exact_part_.data());
      for (size_t row = begin; row < begin + n; ++row) exact_part_mass_ += weights_[row];
    }
  }

  const Segment& segment_;
  const VectorArrays& arrays_;
  const std::vector<float> query_;
  const LevelTerms& terms_;
  float shift_ = 0;
  float exact_mass_ = 0;
  float exact_part_mass_ = 0;
  std::vector<float> weights_, logits_, direction_, exact_part_, exact_;
  std::vector<bool> is_exact_;
};

}  // namespace

TermErrors MeasureTerms(const Segment& segment, const VectorArrays& arrays,
                        const ClusterMoments& moments, float logit_scale,
                        std::span<const float> training_queries) {
  TermErrors errors;
  const size_t dim = segment.head_dim;
  const size_t count = training_queries.size() / dim;
  const size_t measured = std::min(count, kMeasuredQueries);
  const double scatter = segment.clusters.scatter;
  const LevelTerms terms{.first_order = Divide(moments.cross, scatter),
                         .covariance = Divide(moments.covariance, scatter)};
  for (size_t i = 0; i < measured; ++i) {
    const float* query = training_queries.data() + (i * count / measured) * dim;
    std::vector<float> scaled(query, query + dim);
    for (float& x : scaled) x *= logit_scale;
    const SegmentTrial trial(segment, arrays, terms, std::move(scaled));
    for (size_t c = 0; c < kTermCombinations; ++c) errors.error[c] += trial.Error(c);
  }
  errors.measured = measured > 0;
  return errors;
}

void PooledTerms::LevelSums::Add(const ClusterSums& sums, const ClusterMoments& moments) {
  for (size_t i = 0; i < cross.size(); ++i) cross[i] += moments.cross[i];
  for (size_t i = 0; i < covariance.size(); ++i) covariance[i] += moments.covariance[i];
  scatter += sums.scatter;
  value_scatter += sums.value_scatter;
  rows += sums.row_begin.back();
}

std::vector<float> PooledTerms::LevelSums::Regression() const {
  return SolveRidge(covariance, cross, kRidge);
}

double PooledTerms::LevelSums::ValueResidual(std::span<const float> regression) const {
  double explained = 0;
  for (size_t i = 0; i < cross.size(); ++i) explained += cross[i] * double{regression[i]};
  return std::max(value_scatter - explained, 0.0);
}

LevelTerms PooledTerms::LevelSums::Terms() const {
  const std::vector<float> regression = Regression();
  const double n = std::max<double>(1.0, static_cast<double>(rows));
  return {.first_order = Divide(cross, scatter),
          .covariance = Divide(covariance, scatter),
          .mean_variance = static_cast<float>(scatter / n),
          .value_residual = static_cast<float>(ValueResidual(regression) / n)};
}

PooledTerms::PooledTerms(size_t head_dim, size_t value_dim)
    : head_dim_(head_dim), value_dim_(value_dim) {
  clusters_ = super_clusters_ = {.cross = std::vector<double>(head_dim_ * value_dim_, 0.0),
                                 .covariance = std::vector<double>(head_dim_ * head_dim_, 0.0)};
}

void PooledTerms::Add(const Segment& segment, const SegmentMoments& moments,
                      const TermErrors& errors) {
  clusters_.Add(segment.clusters, moments.clusters);
  super_clusters_.Add(segment.super_clusters, moments.super_clusters);
  errors_.push_back(errors);
  ++segments_added_;
  value_scatter_ += segment.value_scatter;
}

void PooledTerms::Truncate(size_t kept) {
  if (kept == 0) {
    *this = PooledTerms(head_dim_, value_dim_);
  } else {
    errors_.resize(std::min(kept, errors_.size()));
  }
}

bool PooledTerms::stale() const {
  return static_cast<double>(segments_added_ - errors_.size()) >
         kGoneMax * static_cast<double>(segments_added_);
}

absl::StatusOr<PooledTerms> PooledTerms::Renewed(
    std::span<const std::shared_ptr<const Segment>> segments) const {
  ATTIC_CHECK(segments.size() == errors_.size());
  PooledTerms renewed(head_dim_, value_dim_);
  for (size_t i = 0; i < segments.size(); ++i) {
    ATTIC_ASSIGN_OR_RETURN(const auto arrays, segments[i]->vectors->ArraysOrRead());
    renewed.Add(*segments[i], MeasureMoments(*segments[i], *arrays), errors_[i]);
  }
  return renewed;
}

std::shared_ptr<const EstimateTerms> PooledTerms::Terms() const {
  auto terms = std::make_shared<EstimateTerms>();
  std::array<double, kTermCombinations> total = {};
  bool measured = false;
  for (const TermErrors& errors : errors_) {
    measured |= errors.measured;
    for (size_t c = 0; c < kTermCombinations; ++c) total[c] += errors.error[c];
  }
  if (measured) {
    const size_t best =
        static_cast<size_t>(std::min_element(total.begin(), total.end()) - total.begin());
    terms->variance_share = VarianceShare(best);
    terms->first_order = HasFirstOrder(best);
  }
  terms->clusters = clusters_.Terms();
  terms->super_clusters = super_clusters_.Terms();
  terms->regression = clusters_.Regression();
  terms->value_variance = static_cast<float>(
      value_scatter_ / std::max<double>(1.0, static_cast<double>(clusters_.rows)));
  return terms;
}

void PooledTerms::LevelSums::Encode(ByteWriter& writer) const {
  writer.PutArray(cross);
  writer.PutArray(covariance);
  writer.Put(scatter);
  writer.Put(value_scatter);
  writer.Put<uint64_t>(rows);
}

bool PooledTerms::LevelSums::Decode(ByteReader& reader) {
  const size_t cross_size = cross.size(), covariance_size = covariance.size();
  cross = reader.GetArray<double>();
  covariance = reader.GetArray<double>();
  scatter = reader.Get<double>();
  value_scatter = reader.Get<double>();
  rows = reader.Get<uint64_t>();
  return reader.ok() && cross.size() == cross_size && covariance.size() == covariance_size &&
         std::all_of(cross.begin(), cross.end(), [](double x) { return std::isfinite(x); }) &&
         std::all_of(covariance.begin(), covariance.end(),
                     [](double x) { return std::isfinite(x); }) &&
         std::isfinite(scatter) && std::isfinite(value_scatter);
}

void PooledTerms::Encode(ByteWriter& writer) const {
  clusters_.Encode(writer);
  super_clusters_.Encode(writer);
  writer.Put<uint64_t>(segments_added_);
  writer.Put(value_scatter_);
  writer.Put<uint64_t>(errors_.size());
  for (const TermErrors& errors : errors_) {
    writer.Put<uint8_t>(errors.measured ? 1 : 0);
    for (const double error : errors.error) writer.Put(error);
  }
}

bool PooledTerms::Decode(ByteReader& reader, size_t segments) {
  PooledTerms decoded(head_dim_, value_dim_);
  if (!decoded.clusters_.Decode(reader) || !decoded.super_clusters_.Decode(reader)) return false;
  decoded.segments_added_ = reader.Get<uint64_t>();
  decoded.value_scatter_ = reader.Get<double>();
  const auto count = reader.Get<uint64_t>();
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    TermErrors errors;
    errors.measured = reader.Get<uint8_t>() != 0;
    for (double& error : errors.error) error = reader.Get<double>();
    decoded.errors_.push_back(errors);
  }
  if (!reader.ok() || decoded.segments_added_ < count || !std::isfinite(decoded.value_scatter_)) {
    return false;
  }
  if (segments < count) {
    decoded.Truncate(segments);
  } else {
    decoded.errors_.resize(segments);
    decoded.segments_added_ += segments - count;
  }
  *this = std::move(decoded);
  return true;
}

}  // namespace attic
