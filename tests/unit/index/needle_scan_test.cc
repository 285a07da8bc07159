#include "server/index/search/needle_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <set>

#include "attention/vector_kernels.h"
#include "server/index/head_snapshot.h"
#include "tests/unit/index/synthetic_head.h"

namespace attic {
namespace {

constexpr size_t kDim = 64;
constexpr size_t kTokens = 16384;
constexpr float kSharpness = 150;  // |q| |k| of a needle

// A head whose needles have near-equal distractors, and the logits of all its keys.
class NeedleHead {
 public:
  NeedleHead(uint64_t seed, size_t group, ThreadPool* helpers = nullptr,
             int64_t super_cluster_clusters = 16)
      : random_(seed), group_(group), helpers_(helpers) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    SyntheticOptions synthetic{.head_dim = kDim, .value_dim = kDim, .seed = seed};
    SyntheticHead source(synthetic);
    std::vector<float> values;
    source.AppendTokens(kTokens, keys_, values);
    HideNeedles();
    HeadShape shape{.head_dim = kDim, .value_dim = kDim, .group = static_cast<uint32_t>(group)};
    IndexOptions options;
    options.segment_tokens = 2048;
    options.cluster_tokens = 16;
    options.super_cluster_clusters = super_cluster_clusters;
    head_ = HeadIndex::Create(shape, options);
    const std::vector<std::byte> k = Narrow(keys_, shape.element_type);
    const std::vector<std::byte> v = Narrow(values, shape.element_type);
    ToFloat32(k.data(), shape.element_type, keys_);
    head_->Append({k.data(), shape.element_type, kTokens, kDim},
                  {v.data(), shape.element_type, kTokens, kDim});
    while (head_->BuildNext().value()) {
    }
    snapshot_ = std::static_pointer_cast<const IndexedHeadSnapshot>(head_->Snapshot());
  }

  const IndexedPart& part() const { return *snapshot_->part(); }
  size_t query_count() const { return needles_.size() / kDim; }

  // Queries of the group from needle `first` on, a little beside their needles.
  std::vector<float> Queries(size_t first) {
    std::vector<float> queries;
    for (size_t g = 0; g < group_; ++g) {
      const float* needle = needles_.data() + (first + g) % query_count() * kDim;
      std::vector<float> query = Near(needle, 0.3f);
      const float length = std::sqrt(Dot(needle, needle, kDim));
      for (float& x : query) x *= kSharpness / (length * length);
      queries.insert(queries.end(), query.begin(), query.end());
    }
    return queries;
  }

  float Logit(const float* query, size_t position) const {
    return Dot(query, keys_.data() + position * kDim, kDim);
  }

  // Runs the scan; positions found by each query.
  std::vector<std::set<int64_t>> Find(const std::vector<float>& queries, PositionRange range,
                                      float log_share_min, size_t count,
                                      std::vector<float>& log_total) {
    const IndexedPart& indexed = part();
    std::vector<float> super_logits(group_ * indexed.super_cluster_count());
    ScoreVectors(queries.data(), group_, indexed.super_centroids(), super_logits.data());
    const NeedleRequest request{.queries = queries,
                                .super_logits = super_logits,
                                .range = range,
                                .log_share_min = log_share_min,
                                .count = count};
    log_total.assign(group_, -std::numeric_limits<float>::infinity());
    read_ = {};
    FindNeedles(indexed, request, helpers_, log_total, scratch_, read_);
    std::vector<std::set<int64_t>> found(group_);
    for (size_t g = 0; g < group_; ++g) {
      float last = std::numeric_limits<float>::infinity();
      for (const NeedleCandidate& key : scratch_.best[g]) {
        const int64_t position = indexed.segments[key.segment]->position(key.row);
        EXPECT_NEAR(key.logit, Logit(queries.data() + g * kDim, position), 1e-2);
        EXPECT_LE(key.logit, last);
        last = key.logit;
        EXPECT_TRUE(found[g].insert(position).second) << "found twice";
      }
    }
    return found;
  }

  const ReadStatistics& read() const { return read_; }

 private:
  // A unit vector in a random direction, times the length of `vector` and `share`, added to it.
  std::vector<float> Near(const float* vector, float share) {
    std::vector<float> noise(kDim);
    for (float& x : noise) x = normal_(random_);
    const float scale =
        share * std::sqrt(Dot(vector, vector, kDim) / Dot(noise.data(), noise.data(), kDim));
    for (size_t i = 0; i < kDim; ++i) noise[i] = vector[i] + scale * noise[i];
    return noise;
  }

  void HideNeedles() {
    constexpr size_t kNeedles = 64, kDistractors = 3;
    for (size_t n = 0; n < kNeedles; ++n) {
      std::vector<float> key(kDim);
      for (float& x : key) x = normal_(random_);
      needles_.insert(needles_.end(), key.begin(), key.end());
      std::copy(key.begin(), key.end(), keys_.begin() + random_() % kTokens * kDim);
      for (size_t i = 0; i < kDistractors; ++i) {
        const std::vector<float> distractor = Near(key.data(), 0.5f);
        std::copy(distractor.begin(), distractor.end(), keys_.begin() + random_() % kTokens * kDim);
      }
    }
  }

  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
  const size_t group_;
  ThreadPool* const helpers_;
  std::vector<float> keys_;     // (tokens, head_dim), as stored
  std::vector<float> needles_;  // (needles, head_dim)
  std::unique_ptr<HeadIndex> head_;
  std::shared_ptr<const IndexedHeadSnapshot> snapshot_;
  NeedleScratch scratch_;
  ReadStatistics read_;
};

constexpr float kLogShareMin = -6.9f;
constexpr size_t kCount = 2048;

void ExpectEveryKeyThatMatters(NeedleHead& head, size_t group, PositionRange range) {
  size_t wanted = 0, missed = 0;
  std::vector<float> log_total;
  for (size_t first = 0; first < head.query_count(); first += group) {
    const std::vector<float> queries = head.Queries(first);
    const auto found = head.Find(queries, range, kLogShareMin, kCount, log_total);
    for (size_t g = 0; g < group; ++g) {
      const float* query = queries.data() + g * kDim;
      float best = -std::numeric_limits<float>::infinity();
      for (int64_t p = range.begin; p < range.end; ++p) best = std::max(best, head.Logit(query, p));
      EXPECT_NEAR(log_total[g], best, 1e-2);
      for (int64_t p = range.begin; p < range.end; ++p) {
        if (head.Logit(query, p) < best + kLogShareMin + 0.1f) continue;
        ++wanted;
        missed += !found[g].contains(p);
      }
      for (int64_t p : found[g]) EXPECT_TRUE(p >= range.begin && p < range.end);
    }
  }
  std::printf("missed %zu of %zu\n", missed, wanted);
  EXPECT_GE(wanted, head.query_count());
  EXPECT_LE(missed, wanted / 200);
}

TEST(NeedleScanTest, FindsEveryKeyThatMatters) {
  for (const size_t group : {1, 3, 8}) {
    NeedleHead head(10 + group, group);
    ExpectEveryKeyThatMatters(head, group, {0, kTokens});
  }
}

TEST(NeedleScanTest, FindsThoseInRangeOnly) {
  NeedleHead head(20, 2);
  ExpectEveryKeyThatMatters(head, 2, {3000, 12345});
  std::vector<float> log_total;
  for (const auto& found : head.Find(head.Queries(0), {5, 5}, kLogShareMin, kCount, log_total)) {
    EXPECT_TRUE(found.empty());
  }
}

// Small super-clusters make a scan long enough to be shared.
TEST(NeedleScanTest, HelpersFindTheSame) {
  ThreadPool pool(3);
  NeedleHead alone(25, 2, nullptr, 2), helped(25, 2, &pool, 2);
  ASSERT_GE(alone.part().super_cluster_count(), 512u);
  std::vector<float> log_total, helped_total;
  for (size_t first = 0; first < alone.query_count(); first += 2) {
    const std::vector<float> queries = alone.Queries(first);
    ASSERT_EQ(queries, helped.Queries(first));
    const auto found = alone.Find(queries, {0, kTokens}, kLogShareMin, kCount, log_total);
    EXPECT_EQ(helped.Find(queries, {0, kTokens}, kLogShareMin, kCount, helped_total), found);
    EXPECT_EQ(helped_total, log_total);
  }
}

TEST(NeedleScanTest, SharpQueriesReadAFractionOfTheCodes) {
  NeedleHead head(30, 1);
  std::vector<float> log_total;
  uint64_t bytes = 0;
  for (size_t i = 0; i < head.query_count(); ++i) {
    head.Find(head.Queries(i), {0, kTokens}, kLogShareMin, kCount, log_total);
    bytes += head.read().bytes_read;
  }
  EXPECT_LT(bytes / head.query_count(), kTokens * (kDim / 8 + 1) * 4 / 5);
}

TEST(NeedleScanTest, WithoutAFloorTheBestKeysByCodeAreScored) {
  NeedleHead head(40, 2);
  std::vector<float> log_total;
  const float none = -std::numeric_limits<float>::infinity();
  size_t right = 0;
  for (size_t first = 0; first < head.query_count(); first += 2) {
    const std::vector<float> queries = head.Queries(first);
    const auto found = head.Find(queries, {0, kTokens}, none, 200, log_total);
    for (size_t g = 0; g < 2; ++g) {
      EXPECT_LE(found[g].size(), 200u);
      EXPECT_GE(found[g].size(), 100u);
      int64_t best = 0;
      const float* query = queries.data() + g * kDim;
      for (size_t p = 1; p < kTokens; ++p) {
        if (head.Logit(query, p) > head.Logit(query, best)) best = static_cast<int64_t>(p);
      }
      right += found[g].contains(best);
    }
  }
  EXPECT_EQ(right, head.query_count());
}

}  // namespace
}  // namespace attic
