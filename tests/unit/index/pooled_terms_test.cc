#include "server/index/estimate/pooled_terms.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "server/index/segment/segment_builder.h"
#include "tests/unit/index/synthetic_head.h"

namespace attic {
namespace {

constexpr size_t kDim = 32, kTokens = 256;

class PooledTermsTest : public testing::Test {
 protected:
  PooledTermsTest() : source_({.head_dim = kDim, .value_dim = kDim, .topics = 50, .seed = 5}) {
    std::printf("seed 5\n");
    for (int64_t i = 0; i < 16; ++i) segments_.push_back(NextSegment(i * kTokens));
  }

  std::shared_ptr<const Segment> NextSegment(int64_t begin) {
    std::vector<float> keys, values;
    source_.AppendTokens(kTokens, keys, values);
    const ElementType type = ElementType::kBFloat16;
    const std::vector<std::byte> k = Narrow(keys, type), v = Narrow(values, type);
    return BuildSegment({k.data(), type, kTokens, kDim}, {v.data(), type, kTokens, kDim}, begin,
                        {.clusters = 16, .super_clusters = 2}, SignRotation(kDim));
  }

  PooledTerms Of(size_t count) const {
    PooledTerms pooled(kDim, kDim);
    for (size_t i = 0; i < count; ++i) {
      pooled.Add(*segments_[i], MeasureMoments(*segments_[i], *segments_[i]->vectors->arrays()),
                 TermErrors());
    }
    return pooled;
  }

  SyntheticHead source_;
  std::vector<std::shared_ptr<const Segment>> segments_;
};

TEST_F(PooledTermsTest, AreRenewedWhenMuchOfWhatWasAddedIsGone) {
  PooledTerms pooled = Of(16);
  EXPECT_FALSE(pooled.stale());
  pooled.Truncate(15);
  EXPECT_FALSE(pooled.stale());
  pooled.Truncate(8);
  EXPECT_TRUE(pooled.stale());
  const PooledTerms renewed = pooled.Renewed(std::span(segments_).first(8)).value();
  EXPECT_FALSE(renewed.stale());
  const auto terms = renewed.Terms(), expected = Of(8).Terms(), before = Of(16).Terms();
  EXPECT_EQ(terms->clusters.covariance, expected->clusters.covariance);
  EXPECT_EQ(terms->super_clusters.first_order, expected->super_clusters.first_order);
  EXPECT_EQ(terms->regression, expected->regression);
  EXPECT_EQ(terms->value_variance, expected->value_variance);
  EXPECT_NE(terms->clusters.covariance, before->clusters.covariance);
}

TEST_F(PooledTermsTest, NothingIsLeftOfAnEmptyHead) {
  PooledTerms pooled = Of(3);
  pooled.Truncate(0);
  EXPECT_FALSE(pooled.stale());
  EXPECT_EQ(pooled.Terms()->clusters.mean_variance, 0.0f);
}

}  // namespace
}  // namespace attic
