// What must hold of a walk whatever is asked of it.
#include "server/index/search/descent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

#include "server/index/head_snapshot.h"
#include "server/index/search/descent_answer.h"
#include "tests/unit/index/head_fixture.h"

namespace attic {
namespace {

constexpr size_t kGroup = 2;

class DescentTest : public testing::Test {
 protected:
  DescentTest() : f_(31, kGroup) {
    f_.Append(4096);
    for (int i = 0; i < 64; ++i) f_.head().AddTrainingQueries(f_.source().Query());
    f_.BuildAll();
    snapshot_ = std::static_pointer_cast<const IndexedHeadSnapshot>(f_.head().Snapshot());
    queries_ = f_.Queries();
    for (float& x : queries_) x *= f_.shape().logit_scale;
    state_.other_log_mass.assign(kGroup, kEmptyLogSumExp);
  }

  const IndexedPart& part() const { return *snapshot_->part(); }

  Descent Begun() {
    Descent descent(part(), {.queries = queries_, .range = {0, 4096}}, state_, read_);
    descent.Begin();
    descent.UpdateTotals();
    descent.WeighDoubts();
    return descent;
  }

  // Rows that some level stands for.
  size_t RowsStoodFor() const {
    size_t rows = 0;
    for (size_t s = 0; s < state_.super_state.size(); ++s) {
      const Segment& segment = *part().segments[s / part().super_clusters_per_segment];
      if (state_.super_state[s] == SuperState::kWhole) {
        rows += segment.super_clusters.rows(s % part().super_clusters_per_segment);
      }
    }
    for (const OpenedSuper& open : state_.opened) {
      const ClusterSums& sums = part().segment_of_node(open.first_node).clusters;
      for (size_t i = 0; i < open.count; ++i) {
        if (state_.cluster_state[open.offset + i] != ClusterState::kEstimated) continue;
        rows += sums.rows(open.first_node % part().clusters_per_segment + i);
      }
    }
    return rows + state_.row_exact.size();
  }

  // Of the output of query 0, from what the walk knows.
  double AnswerError(std::span<const float> unscaled) {
    const size_t dim = f_.shape().value_dim;
    std::vector<AttentionAccumulator> accumulators(kGroup, AttentionAccumulator(dim));
    AnswerScratch scratch;
    AddDescent(part(), queries_, state_, accumulators, scratch, read_);
    std::vector<float> output(dim);
    accumulators[0].Finish(output);
    const Oracle oracle = f_.Reference(unscaled.first(f_.shape().head_dim), {0, 4096});
    double difference = 0, length = 0;
    for (size_t j = 0; j < dim; ++j) {
      difference += (output[j] - oracle.output[j]) * (output[j] - oracle.output[j]);
      length += oracle.output[j] * oracle.output[j];
    }
    return std::sqrt(difference / length);
  }

  size_t RowsFlagged(uint8_t flag) const {
    return static_cast<size_t>(std::count(state_.row_exact.begin(), state_.row_exact.end(), flag));
  }

  HeadFixture f_;
  std::shared_ptr<const IndexedHeadSnapshot> snapshot_;
  std::vector<float> queries_;
  DescentState state_;
  ReadStatistics read_;
};

TEST_F(DescentTest, EveryRowIsStoodForOnceAndDoubtFallsAsItGoesDown) {
  Descent descent = Begun();
  EXPECT_EQ(RowsStoodFor(), 4096u);
  const double at_first = descent.SquaredError();
  double before = at_first;
  for (float threshold = descent.ThresholdFor(before / 2); before > 1e-6 * at_first;
       threshold *= 0.1f) {
    ASSERT_TRUE(descent.Refine({.doubt_per_byte = threshold}, absl::InfiniteFuture()));
    descent.UpdateTotals();
    EXPECT_EQ(RowsStoodFor(), 4096u);
    EXPECT_EQ(RowsFlagged(kRowWanted), 0u);
    EXPECT_EQ(RowsFlagged(kRowExact), read_.exact_tokens);
    EXPECT_LE(descent.SquaredError(), before * 2);
    before = descent.SquaredError();
    ASSERT_GT(threshold, 1e-30f);
  }
  EXPECT_GT(RowsFlagged(kRowExact), 0u);
}

// Codes say so much of keys, and keys of values, that each level errs by far less than the one
// above.
TEST_F(DescentTest, EveryLevelIsMoreAccurateThanTheOneAbove) {
  double error[3] = {};
  constexpr int kQueries = 20;
  for (int i = 0; i < kQueries; ++i) {
    const std::vector<float> unscaled = f_.Queries();
    queries_ = unscaled;
    for (float& x : queries_) x *= f_.shape().logit_scale;
    for (int level = 0; level < 3; ++level) {
      Descent descent = Begun();
      if (level > 0) descent.ReadLevel(/*codes=*/level == 2);
      descent.UpdateTotals();
      error[level] += AnswerError(unscaled) / kQueries;
    }
  }
  std::printf("errors: super-clusters %f, clusters %f, codes %f\n", error[0], error[1], error[2]);
  EXPECT_LT(error[1], 0.7 * error[0]);
  EXPECT_LT(error[2], 0.73 * error[1]);
}

// Where weights are all but equal, what exact rows differ by from their prediction says what the
// others differ by.
TEST_F(DescentTest, RowsNotExactMakeUpForWhatExactOnesDifferBy) {
  const std::vector<float> unscaled = [&] {
    std::vector<float> queries = f_.Queries();
    for (float& x : queries) x *= 0.01f;
    return queries;
  }();
  queries_ = unscaled;
  for (float& x : queries_) x *= f_.shape().logit_scale;
  Descent descent = Begun();
  descent.ReadLevel(/*codes=*/true);
  descent.UpdateTotals();
  std::vector<float> logits(state_.row_logits);
  std::nth_element(logits.begin(), logits.begin() + 2 * kGroup * 1024, logits.end());
  const std::vector<float> floors(kGroup, logits[2 * kGroup * 1024]);
  ASSERT_TRUE(descent.Refine({.row_logit = floors}, absl::InfiniteFuture()));
  descent.UpdateTotals();
  const size_t exact = RowsFlagged(kRowExact);
  EXPECT_GT(exact, 500u);
  EXPECT_LT(exact, 4000u);
  const double error = AnswerError(unscaled);
  std::printf("error with %zu of 4096 rows exact: %f\n", exact, error);
  EXPECT_LT(error, 0.002);
}

TEST_F(DescentTest, WhatADeadlineCutsShortIsNotTakenForExact) {
  Descent descent = Begun();
  descent.ReadLevel(/*codes=*/true);
  descent.UpdateTotals();
  EXPECT_FALSE(descent.Refine({.doubt_per_byte = 0}, absl::InfinitePast()));
  EXPECT_EQ(std::count_if(state_.row_exact.begin(), state_.row_exact.end(),
                          [](uint8_t flag) { return flag != 0; }),
            0);
  descent.UpdateTotals();
  for (const double share : state_.exact_share) EXPECT_EQ(share, 0.0);
}

TEST_F(DescentTest, ABudgetEndsInTheMiddleOfAPass) {
  Descent descent = Begun();
  const double budget = static_cast<double>(read_.bytes_read) + 60000;
  EXPECT_FALSE(descent.Refine({.doubt_per_byte = 0, .bytes_max = budget}, absl::InfiniteFuture()));
  descent.UpdateTotals();
  EXPECT_LT(static_cast<double>(read_.bytes_read), budget + 16 * 1024);
  EXPECT_EQ(RowsFlagged(kRowWanted), 0u);
  EXPECT_EQ(RowsStoodFor(), 4096u);
}

}  // namespace
}  // namespace attic
