#include "server/index/head_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>
#include <thread>

#include "absl/time/clock.h"
#include "server/index/head_snapshot.h"
#include "tests/unit/index/head_fixture.h"

namespace attic {
namespace {

using Fixture = HeadFixture;

const PositionRange kRanges[] = {{0, 3000},   {4, 2990},    {0, 256},     {255, 257},  {300, 300},
                                 {700, 1900}, {2400, 2900}, {2600, 9999}, {1024, 2048}};

TEST(HeadIndexTest, AnEmptyHeadAnswersNothing) {
  Fixture f(1);
  const std::vector<float> queries = f.Queries();
  const HeadAnswer answer = f.Attend(*f.head().Snapshot(), queries, {}, AttendMode::kIndexed);
  EXPECT_THAT(answer.log_sum_exp, testing::Each(kEmptyLogSumExp));
  EXPECT_THAT(answer.output, testing::Each(0.0f));
  EXPECT_FALSE(f.head().BuildNext().value());
}

TEST(HeadIndexTest, ExactModeEqualsTheOracleForEveryTypeGroupAndRange) {
  for (ElementType type : {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
    for (uint32_t group : {1u, 3u, 4u}) {
      Fixture f(group + 10 * static_cast<uint64_t>(type), group, type);
      f.Append(2700);
      f.BuildAll();
      EXPECT_EQ(f.head().Snapshot()->indexed_tokens(), 2560);
      for (const PositionRange& range : kRanges) {
        EXPECT_LT(f.ErrorOf(range, AttendMode::kExact), kExactTolerance)
            << range.begin << " " << range.end;
      }
    }
  }
}

TEST(HeadIndexTest, TheErrorOfEstimatesIsBounded) {
  Fixture f(4, 4);
  f.Append(6000);
  for (int i = 0; i < 64; ++i) f.head().AddTrainingQueries(f.source().Query());
  f.BuildAll();
  for (const PositionRange& range : kRanges) {
    EXPECT_LT(f.ErrorOf(range, AttendMode::kIndexed), 0.6) << range.begin << " " << range.end;
  }
  double sum = 0;
  for (int i = 0; i < 50; ++i) sum += f.ErrorOf({}, AttendMode::kIndexed);
  std::printf("mean of the group's worst error %f\n", sum / 50);
  EXPECT_LT(sum / 50, 0.3);
}

TEST(HeadIndexTest, ExactModeReadsEverythingOnce) {
  Fixture f(5);
  f.Append(2700);
  f.BuildAll();
  const HeadAnswer exact = f.Attend(*f.head().Snapshot(), f.Queries(), {}, AttendMode::kExact);
  EXPECT_THAT(exact.coverage, testing::Each(1.0f));
  EXPECT_THAT(exact.error, testing::Each(0.0f));
  EXPECT_EQ(exact.read.exact_tokens, 2700u);
  EXPECT_EQ(exact.read.bytes_read, 2700u * (f.key_bytes() + f.value_bytes()));
}

TEST(HeadIndexTest, ShortRangesAreScannedExactly) {
  IndexOptions options = Fixture::SmallOptions();
  options.exact_scan_tokens_max = 1000;
  Fixture f(6, 2, ElementType::kBFloat16, options);
  f.Append(2700);
  f.BuildAll();
  EXPECT_LT(f.ErrorOf({100, 1100}, AttendMode::kIndexed), kExactTolerance);
}

TEST(HeadIndexTest, ADeadlineInThePastDegradesButLeavesNoTokenOut) {
  Fixture f(7);
  f.Append(2700);
  f.BuildAll();
  const std::vector<float> queries = f.Queries();
  for (AttendMode mode : {AttendMode::kIndexed, AttendMode::kExact}) {
    const HeadAnswer answer =
        f.Attend(*f.head().Snapshot(), queries, {3, 2650}, mode, absl::InfinitePast());
    EXPECT_TRUE(answer.degraded);
    EXPECT_LT(f.Error(answer, queries, {3, 2650}), 1.5);
    const HeadAnswer later =
        f.Attend(*f.head().Snapshot(), queries, {3, 2650}, mode, absl::Now() + absl::Seconds(100));
    EXPECT_FALSE(later.degraded);
  }
}

TEST(HeadIndexTest, TruncateForgetsAndGoesOn) {
  Fixture f(8);
  f.Append(2700);
  f.BuildAll();
  const auto before = f.head().Snapshot();
  const std::vector<float> queries = f.Queries();
  const HeadAnswer old_answer = f.Attend(*before, queries, {}, AttendMode::kExact);
  for (int64_t position : {2650, 2560, 2300, 1024, 1}) {
    ASSERT_TRUE(f.head().Truncate(position).ok());
    f.Forget(position);
    EXPECT_EQ(f.head().token_count(), position);
    EXPECT_LT(f.ErrorOf({}, AttendMode::kExact), kExactTolerance) << position;
    f.Append(400);
    f.BuildAll();
    EXPECT_LT(f.ErrorOf({}, AttendMode::kExact), kExactTolerance) << position;
    EXPECT_LT(f.ErrorOf({}, AttendMode::kIndexed), 0.7) << position;
  }
  const HeadAnswer again = f.Attend(*before, queries, {}, AttendMode::kExact);
  EXPECT_EQ(again.output, old_answer.output) << "a snapshot changed after it was taken";
}

TEST(HeadIndexTest, ForksGoTheirOwnWays) {
  for (int64_t position : {2700, 2600, 2560, 2000, 0}) {
    Fixture f(9);
    f.Append(2700);
    f.BuildAll();
    std::unique_ptr<HeadIndex> fork = f.head().Fork(position).value();
    f.Append(300);
    f.BuildAll();
    EXPECT_LT(f.ErrorOf({}, AttendMode::kExact), kExactTolerance);
    f.Forget(position);
    f.set_head(std::move(fork));
    EXPECT_EQ(f.head().token_count(), position);
    EXPECT_LT(f.ErrorOf({}, AttendMode::kExact), kExactTolerance) << position;
    f.Append(700);
    f.BuildAll();
    EXPECT_LT(f.ErrorOf({}, AttendMode::kExact), kExactTolerance) << position;
    EXPECT_LT(f.ErrorOf({}, AttendMode::kIndexed), 0.7) << position;
  }
}

TEST(HeadIndexTest, CopyVectorsFindsEveryPosition) {
  Fixture f(10);
  f.Append(700);
  f.BuildAll();
  const auto snapshot = f.head().Snapshot();
  std::vector<std::byte> key(f.key_bytes()), value(f.value_bytes());
  for (int64_t position = 0; position < 700; ++position) {
    ASSERT_TRUE(snapshot->CopyVectors({&position, 1}, key.data(), value.data()).ok());
    const auto row = static_cast<size_t>(position);
    EXPECT_EQ(std::memcmp(key.data(), f.keys().row(row), key.size()), 0) << position;
    EXPECT_EQ(std::memcmp(value.data(), f.values().row(row), value.size()), 0) << position;
  }
  std::vector<std::byte> keys(600 * f.key_bytes()), values(600 * f.value_bytes());
  ASSERT_TRUE(snapshot->CopyRange({50, 650}, keys.data(), values.data()).ok());
  EXPECT_EQ(std::memcmp(keys.data(), f.keys().row(50), keys.size()), 0);
  EXPECT_EQ(std::memcmp(values.data(), f.values().row(50), values.size()), 0);
}

TEST(HeadIndexTest, SearchFindsTheBestKeys) {
  Fixture f(11);
  f.Append(5000);
  f.BuildAll();
  const size_t k = 10;
  size_t found = 0, wanted = 0;
  for (int i = 0; i < 40; ++i) {
    const std::vector<float> queries = f.Queries();
    for (const PositionRange& range : {PositionRange{}, PositionRange{100, 4000}}) {
      std::vector<std::vector<SearchHit>> exact, indexed;
      ReadStatistics read;
      ASSERT_TRUE(f.head()
                      .Snapshot()
                      ->Search({.queries = queries, .range = range, .mode = AttendMode::kExact}, k,
                               f.scratch(), exact, read)
                      .ok());
      ASSERT_TRUE(f.head()
                      .Snapshot()
                      ->Search({.queries = queries, .range = range}, k, f.scratch(), indexed, read)
                      .ok());
      ASSERT_EQ(exact.size(), 2u);
      for (size_t g = 0; g < 2; ++g) {
        ASSERT_EQ(exact[g].size(), k);
        ASSERT_EQ(indexed[g].size(), k);
        std::set<int64_t> positions;
        for (const SearchHit& hit : indexed[g]) {
          EXPECT_TRUE(positions.insert(hit.position).second);
          EXPECT_GE(hit.position, range.begin);
          EXPECT_LT(hit.position, range.end);
        }
        for (const SearchHit& hit : exact[g]) found += positions.count(hit.position);
        wanted += k;
      }
    }
  }
  std::printf("found %zu of %zu\n", found, wanted);
  EXPECT_GT(found, wanted * 95 / 100);
}

TEST(HeadIndexTest, FindsIsolatedKeys) {
  Fixture f(12, 2);
  std::vector<float> keys, values;
  f.source().AppendTokens(20000, keys, values);
  const size_t needles = 60;
  std::vector<std::vector<float>> queries;
  for (size_t i = 0; i < needles; ++i) {
    std::vector<float> key, query;
    f.source().Needle(key, query);
    std::copy(key.begin(), key.end(), keys.begin() + (i * 331) * f.shape().head_dim);
    queries.push_back(query);
  }
  f.AppendRows(keys, values);
  f.BuildAll();
  size_t answered = 0;
  for (size_t i = 0; i + 1 < needles; i += 2) {
    std::vector<float> pair = queries[i];
    pair.insert(pair.end(), queries[i + 1].begin(), queries[i + 1].end());
    const HeadAnswer answer = f.Attend(*f.head().Snapshot(), pair, {}, AttendMode::kIndexed);
    answered += f.Error(answer, pair, {}) < 0.1;
  }
  EXPECT_GE(answered, needles / 2 * 99 / 100);
}

// Where one key outweighs all others and some come close, a key that is missed must not go unsaid.
TEST(HeadIndexTest, CoverageIsNotTooHighOnSharpHeads) {
  Fixture f(14, 2);
  std::vector<float> keys, values;
  f.source().AppendTokens(20000, keys, values);
  const size_t needles = 60, dim = f.shape().head_dim;
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> queries;
  for (size_t i = 0; i < needles; ++i) {
    std::vector<float> key, query;
    f.source().Needle(key, query);
    for (size_t copy = 0; copy < 4; ++copy) {
      const size_t row = (i * 331 + copy * 83) % 20000;
      for (size_t j = 0; j < dim; ++j) {
        const float noise = copy == 0 ? 0 : 0.4f * normal(f.source().random());
        keys[row * dim + j] = key[j] + noise;
      }
    }
    for (float& x : query) x *= 12;  // logits of about 150
    queries.push_back(query);
  }
  f.AppendRows(keys, values);
  f.BuildAll();
  size_t answered = 0, too_high = 0;
  for (size_t i = 0; i + 1 < needles; i += 2) {
    std::vector<float> pair = queries[i];
    pair.insert(pair.end(), queries[i + 1].begin(), queries[i + 1].end());
    const HeadAnswer answer = f.Attend(*f.head().Snapshot(), pair, {}, AttendMode::kIndexed);
    for (size_t g = 0; g < 2; ++g) {
      const Oracle oracle = f.Reference(std::span(pair).subspan(g * dim, dim), {});
      const double covered =
          answer.coverage[g] * std::exp(answer.log_sum_exp[g] - oracle.log_sum_exp);
      too_high += answer.coverage[g] > covered + 0.02;
      answered += covered > 0.99;
      if (covered <= 0.99) {
        std::printf("query %zu: coverage %f, true %f, log-sum-exp %f, true %f\n", i + g,
                    answer.coverage[g], covered, answer.log_sum_exp[g], oracle.log_sum_exp);
      }
    }
  }
  EXPECT_EQ(too_high, 0u);
  EXPECT_EQ(answered, needles);
}

// One appender, one builder and two searchers; every answer must be that of the prefix its
// snapshot holds.
TEST(HeadIndexTest, SearchesRunBesideAppendsAndBuilds) {
  Fixture f(13);
  std::vector<float> keys, values;
  constexpr size_t kTokens = 4000;
  f.source().AppendTokens(kTokens, keys, values);
  const std::vector<std::byte> k = Narrow(keys, ElementType::kBFloat16);
  const std::vector<std::byte> v = Narrow(values, ElementType::kBFloat16);
  const VectorsView key_view{k.data(), ElementType::kBFloat16, kTokens, f.shape().head_dim};
  const VectorsView value_view{v.data(), ElementType::kBFloat16, kTokens, f.shape().value_dim};
  const std::vector<float> queries = f.Queries();
  std::atomic<bool> done = false;
  std::atomic<int> answers = 0;
  const auto search = [&](AttendMode mode, double tolerance) {
    const SearchScratchPtr scratch = MakeSearchScratch();
    std::vector<double> output(f.shape().value_dim);
    do {
      const auto snapshot = f.head().Snapshot();
      HeadAnswer answer;
      ASSERT_TRUE(snapshot->Attend({.queries = queries, .mode = mode}, *scratch, answer).ok());
      const auto n = static_cast<size_t>(snapshot->token_count());
      const double expected =
          ReferenceAttention(std::span(queries).first(f.shape().head_dim), f.shape().logit_scale,
                             key_view.rows(0, n), value_view.rows(0, n), output);
      if (n != 0) {
        EXPECT_NEAR(answer.log_sum_exp[0], expected, tolerance) << n;
      }
      ++answers;
    } while (!done);
  };
  std::thread exact([&] { search(AttendMode::kExact, kExactTolerance); });
  std::thread indexed([&] { search(AttendMode::kIndexed, 0.7); });
  std::thread build([&] {
    while (!done) {
      if (!f.head().BuildNext().value()) std::this_thread::yield();
    }
  });
  for (size_t at = 0; at < kTokens;) {
    const size_t n = std::min<size_t>(kTokens - at, 1 + at % 97);
    f.head().Append(key_view.rows(at, n), value_view.rows(at, n));
    if (at % 7 == 0) f.head().AddTrainingQueries(queries);
    at += n;
    if (at % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  while (f.head().pending_segments() > 0) std::this_thread::yield();
  done = true;
  exact.join();
  indexed.join();
  build.join();
  EXPECT_EQ(f.head().Snapshot()->indexed_tokens(), 3840);
  std::printf("%d answers\n", answers.load());
}

// Who waits until nothing is pending may rely on the graph.
TEST(HeadIndexTest, ASegmentIsPendingUntilTheGraphHoldsIt) {
  Fixture f(20);
  f.head().AddTrainingQueries(f.Queries());
  f.Append(8 * 256);
  EXPECT_EQ(f.head().pending_segments(), 8);
  std::thread build([&] { f.BuildAll(); });
  while (f.head().pending_segments() > 0) std::this_thread::yield();
  const auto snapshot = std::static_pointer_cast<const IndexedHeadSnapshot>(f.head().Snapshot());
  build.join();
  ASSERT_EQ(snapshot->indexed_tokens(), 8 * 256);
  ASSERT_NE(snapshot->part()->graph, nullptr);
  EXPECT_EQ(snapshot->part()->graph->node_count(), snapshot->part()->node_count());
}

TEST(HeadIndexTest, MemoryIsAccountedFor) {
  Fixture f(14);
  f.Append(2700);
  EXPECT_EQ(f.head().memory_use().vectors_bytes, 0u);
  f.BuildAll();
  const MemoryUse use = f.head().memory_use();
  EXPECT_EQ(use.vectors_bytes, 2560 * (f.key_bytes() + f.value_bytes()));
  EXPECT_GT(use.summaries_bytes, 0u);
  EXPECT_GT(use.codes_bytes, 2560u * 8);
  EXPECT_GT(use.graph_bytes, 0u);
}

// No default gives single keys away that are unlike their neighbours: neither in attention nor in
// searches.
TEST(HeadNeedleTest, SearchesFindKeysThatSumsHide) {
  IndexOptions options = HeadFixture::SmallOptions();
  options.segment_tokens = 4096;
  options.cluster_tokens = 64;
  options.super_cluster_clusters = 16;
  options.centroid_graph = false;
  HeadFixture f(42, 1, ElementType::kBFloat16, options);
  constexpr int kNeedles = 24;
  std::vector<std::vector<float>> queries(kNeedles);
  std::vector<int64_t> positions;
  for (std::vector<float>& query : queries) {
    f.Append(1000);
    std::vector<float> key, values(f.shape().value_dim, 1.0f);
    f.source().Needle(key, query);
    positions.push_back(f.count());
    f.AppendRows(key, values);
  }
  f.Append(2000);
  f.BuildAll();
  int found = 0;
  for (int i = 0; i < kNeedles; ++i) {
    std::vector<std::vector<SearchHit>> hits;
    ReadStatistics read;
    ASSERT_TRUE(
        f.head()
            .Snapshot()
            ->Search({.queries = queries[i], .range = {0, f.count()}}, 1, f.scratch(), hits, read)
            .ok());
    found += hits[0].size() == 1 && hits[0][0].position == positions[i];
    EXPECT_LT(read.exact_tokens, 8000u);
  }
  std::printf("%d of %d needles found\n", found, kNeedles);
  EXPECT_EQ(found, kNeedles);
}

// What is scanned is what the plan says, whatever it was measured to be.
TEST(HeadPlanTest, AnswersFollowThePlan) {
  IndexOptions options = HeadFixture::SmallOptions();
  options.exact_when_better = true;
  HeadFixture f(41, 2, ElementType::kBFloat16, options);
  f.Append(4096);
  for (int i = 0; i < 64; ++i) f.head().AddTrainingQueries(f.source().Query());
  f.BuildAll();
  const HeadPlan plan = f.head().Plan();
  EXPECT_EQ(plan.indexed_tokens, 4096);
  EXPECT_GT(plan.answers_measured, 0u);
  const double scanned_up_to = std::max(plan.scan_faster_below, plan.least_error);
  ASSERT_GT(scanned_up_to, 1e-5);
  ASSERT_LT(scanned_up_to, 1.0);
  const std::vector<float> queries = f.Queries();
  const auto is_scan = [&](const SelectionPolicy& policy) {
    return f.Attend(queries, {0, 4096}, policy).read.exact_tokens == 4096u;
  };
  EXPECT_TRUE(is_scan({SelectionGoal::kMaxError, 1e-5}));
  EXPECT_FALSE(is_scan({SelectionGoal::kMaxError, 1.0}));
  EXPECT_EQ(is_scan({}), plan.scans_by_default);
  EXPECT_TRUE(plan.coverage_max >= 1 || is_scan({SelectionGoal::kCoverage, 1.0}));
}

}  // namespace
}  // namespace attic
