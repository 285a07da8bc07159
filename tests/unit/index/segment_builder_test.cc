#include "server/index/segment/segment_builder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "attention/vector_kernels.h"
#include "server/index/estimate/estimation.h"
#include "server/index/segment/cluster_moments.h"
#include "tests/unit/index/synthetic_head.h"

namespace attic {
namespace {

constexpr size_t kTokens = 1000, kHeadDim = 48, kValueDim = 40;

class SegmentBuilderTest : public testing::Test {
 protected:
  SegmentBuilderTest() {
    SyntheticOptions options;
    options.head_dim = kHeadDim;
    options.value_dim = kValueDim;
    options.topics = 30;
    std::printf("seed %llu\n", static_cast<unsigned long long>(options.seed));
    source_ = std::make_unique<SyntheticHead>(options);
    source_->AppendTokens(kTokens, keys_, values_);
    const ElementType type = ElementType::kFloat32;
    const std::vector<std::byte> k = Narrow(keys_, type), v = Narrow(values_, type);
    const SegmentOptions segment_options{60, 5, 10};
    segment_ =
        BuildSegment({k.data(), type, kTokens, kHeadDim}, {v.data(), type, kTokens, kValueDim},
                     7000, segment_options, SignRotation(kHeadDim));
  }

  const float* key(size_t token) const { return keys_.data() + token * kHeadDim; }
  const float* value(size_t token) const { return values_.data() + token * kValueDim; }
  size_t token(size_t row) const { return segment_->row_position[row]; }

  // Checks one level against sums in double.
  void CheckSums(const ClusterSums& sums, const ClusterMoments& moments) const {
    std::vector<float> centroids(sums.count * kHeadDim), means(sums.count * kValueDim);
    ToFloat32(sums.centroids.data(), ElementType::kBFloat16, centroids);
    ToFloat32(sums.mean_values.data(), ElementType::kBFloat16, means);
    std::vector<double> cross(kHeadDim * kValueDim);
    double scatter = 0;
    for (size_t group = 0; group < sums.count; ++group) {
      const size_t n = sums.rows(group);
      if (n == 0) {
        EXPECT_EQ(sums.log_count[group], -std::numeric_limits<float>::infinity());
        continue;
      }
      std::vector<double> center(kHeadDim), mean(kValueDim);
      for (size_t row = sums.row_begin[group]; row < sums.row_begin[group + 1]; ++row) {
        for (size_t i = 0; i < kHeadDim; ++i) center[i] += double{key(token(row))[i]} / n;
        for (size_t i = 0; i < kValueDim; ++i) mean[i] += double{value(token(row))[i]} / n;
      }
      for (size_t i = 0; i < kHeadDim; ++i) {
        EXPECT_NEAR(centroids[group * kHeadDim + i], center[i],
                    0.005 + 0.005 * std::abs(center[i]));
      }
      for (size_t i = 0; i < kValueDim; ++i) {
        EXPECT_NEAR(means[group * kValueDim + i], mean[i], 0.005 + 0.005 * std::abs(mean[i]));
      }
      double squares = 0, farthest = 0;
      for (size_t row = sums.row_begin[group]; row < sums.row_begin[group + 1]; ++row) {
        double square = 0;
        for (size_t i = 0; i < kHeadDim; ++i) {
          const double e = key(token(row))[i] - center[i];
          square += e * e;
          for (size_t j = 0; j < kValueDim; ++j) {
            cross[i * kValueDim + j] += e * value(token(row))[j];
          }
        }
        squares += square;
        farthest = std::max(farthest, square);
      }
      scatter += squares / kHeadDim;
      EXPECT_NEAR(sums.deviation[group], std::sqrt(squares / (n * kHeadDim)), 1e-4);
      EXPECT_NEAR(sums.radius[group], std::sqrt(farthest), 1e-3);
      EXPECT_NEAR(sums.log_count[group], std::log(n), 1e-5);
    }
    EXPECT_NEAR(sums.scatter, scatter, 1e-3 * scatter);
    for (size_t i = 0; i < cross.size(); ++i) EXPECT_NEAR(moments.cross[i], cross[i], 0.05);
  }

  std::unique_ptr<SyntheticHead> source_;
  std::vector<float> keys_, values_;
  std::shared_ptr<const Segment> segment_;
};

TEST_F(SegmentBuilderTest, HoldsEveryPositionExactlyOnce) {
  std::set<size_t> seen;
  for (size_t row = 0; row < kTokens; ++row) {
    EXPECT_TRUE(seen.insert(token(row)).second);
    EXPECT_EQ(std::memcmp(segment_->key_rows(*segment_->vectors->arrays()).row(row),
                          key(token(row)), kHeadDim * 4),
              0);
    EXPECT_EQ(std::memcmp(segment_->value_rows(*segment_->vectors->arrays()).row(row),
                          value(token(row)), kValueDim * 4),
              0);
    const size_t cluster = segment_->cluster_of_row(row);
    EXPECT_GE(row, segment_->clusters.row_begin[cluster]);
    EXPECT_LT(row, segment_->clusters.row_begin[cluster + 1]);
    EXPECT_EQ(segment_->FindRow(segment_->position(row)), row);
  }
  EXPECT_EQ(segment_->begin_position, 7000);
  EXPECT_EQ(segment_->end_position(), 8000);
  EXPECT_EQ(segment_->super_cluster_begin.back(), segment_->clusters.count);
  for (size_t s = 0; s <= segment_->super_clusters.count; ++s) {
    EXPECT_EQ(segment_->super_clusters.row_begin[s],
              segment_->clusters.row_begin[segment_->super_cluster_begin[s]]);
  }
}

TEST_F(SegmentBuilderTest, SumsAreRightAtBothLevels) {
  const SegmentMoments moments = MeasureMoments(*segment_, *segment_->vectors->arrays());
  CheckSums(segment_->clusters, moments.clusters);
  CheckSums(segment_->super_clusters, moments.super_clusters);
}

TEST_F(SegmentBuilderTest, RowsInRangeAreThoseAndOnlyThose) {
  for (const PositionRange& range :
       {PositionRange{7000, 8000}, PositionRange{7100, 7500}, PositionRange{0, 7001},
        PositionRange{7999, 9000}, PositionRange{8000, 9000}, PositionRange{0, 7000}}) {
    for (size_t cluster = 0; cluster < segment_->clusters.count; ++cluster) {
      const Segment::Rows rows = segment_->RowsInRange(cluster, range);
      for (size_t row = segment_->clusters.row_begin[cluster];
           row < segment_->clusters.row_begin[cluster + 1]; ++row) {
        const int64_t position = segment_->position(row);
        const bool in_range = position >= range.begin && position < range.end;
        EXPECT_EQ(in_range, row >= rows.begin && row < rows.end);
      }
    }
  }
}

// With a query short enough for the expansion to hold, both levels predict the mass of the segment.
TEST_F(SegmentBuilderTest, EstimatedMassIsCloseToTheTruth) {
  const SegmentMoments moments = MeasureMoments(*segment_, *segment_->vectors->arrays());
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> query = source_->Query();
    for (float& x : query) x *= 0.02f;
    double truth = 0;
    for (size_t t = 0; t < kTokens; ++t) truth += std::exp(Dot(query.data(), key(t), kHeadDim));
    for (const ClusterSums* sums : {&segment_->clusters, &segment_->super_clusters}) {
      const VectorsView centroids{sums->centroids.data(), ElementType::kBFloat16, sums->count,
                                  kHeadDim};
      std::vector<float> log_mass(sums->count);
      ScoreVectors(query.data(), 1, centroids, log_mass.data());
      LevelTerms terms;
      const ClusterMoments& level =
          sums == &segment_->clusters ? moments.clusters : moments.super_clusters;
      for (float x : level.covariance) {
        terms.covariance.push_back(x / static_cast<float>(sums->scatter));
      }
      const float norm = DeviationNorm(terms, query);
      EstimateLogMass(log_mass.data(), GroupSums::Of(*sums, 0, sums->count), norm, log_mass.data());
      double estimate = 0;
      for (float x : log_mass) estimate += std::exp(x);
      EXPECT_NEAR(estimate / truth, 1.0, sums == &segment_->clusters ? 0.01 : 0.1);
    }
  }
}

}  // namespace
}  // namespace attic
