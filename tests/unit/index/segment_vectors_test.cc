// Vectors that are evicted, and heads that find them in their source.
#include "server/index/segment/segment_vectors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "server/index/segment/segment.h"
#include "tests/unit/index/head_fixture.h"

namespace attic {
namespace {

// A file in memory.
class FakeSource : public VectorSource {
 public:
  FakeSource(VectorArrays arrays, std::vector<uint32_t> row_begin)
      : arrays_(std::move(arrays)), row_begin_(std::move(row_begin)) {}

  absl::Status ReadClusters(std::span<ClusterRead> reads) const override {
    for (ClusterRead& read : reads) {
      const auto& source = *static_cast<const FakeSource*>(read.source);
      if (source.fails) return absl::UnavailableError("fake.seg: fails");
      const size_t rows = source.row_begin_.back();
      const size_t begin = source.row_begin_[read.cluster];
      read.rows = {source.arrays_.keys.data() + source.arrays_.keys.size() / rows * begin,
                   source.arrays_.values.data() + source.arrays_.values.size() / rows * begin,
                   nullptr};
      read.disk_bytes = 1;
      ++clusters_read;
    }
    return absl::OkStatus();
  }
  absl::StatusOr<VectorArrays> ReadAll() const override {
    if (fails) return absl::UnavailableError("fake.seg: fails");
    return arrays_;
  }
  uint64_t bytes() const override { return arrays_.bytes(); }
  void Keep(uint32_t cluster, std::span<const std::byte> keys,
            std::span<const std::byte> values) const override {
    kept[cluster] = keys.size() + values.size();
  }

  bool fails = false;
  mutable size_t clusters_read = 0;
  mutable std::map<uint32_t, size_t> kept;

 private:
  const VectorArrays arrays_;
  const std::vector<uint32_t> row_begin_;
};

VectorArrays SomeArrays() {
  VectorArrays arrays{std::vector<std::byte>(6 * 8), std::vector<std::byte>(6 * 4)};
  for (size_t i = 0; i < arrays.keys.size(); ++i) arrays.keys[i] = static_cast<std::byte>(i);
  return arrays;
}

TEST(SegmentVectorsTest, MemoryIsChargedUntilTheLastReaderLetsGo) {
  const auto budget = std::make_shared<MemoryBudget>(1000);
  const std::vector<uint32_t> row_begin = {0, 2, 3, 6};
  SegmentVectors vectors(SomeArrays(), 3, budget);
  EXPECT_EQ(budget->used_bytes(), 72u);
  EXPECT_EQ(vectors.Evict(row_begin), 0u) << "there is nowhere to read them from";
  const auto source = std::make_shared<FakeSource>(SomeArrays(), row_begin);
  vectors.AttachSource(source);
  vectors.CountRead(2);
  vectors.CountRead(2);
  vectors.CountRead(0);
  EXPECT_EQ(vectors.Heat(false), 3u);
  auto reader = vectors.arrays();
  EXPECT_EQ(vectors.Evict(row_begin), 72u);
  EXPECT_EQ(source->kept, (std::map<uint32_t, size_t>{{2, 3 * 12}})) << "what was read often";
  EXPECT_FALSE(vectors.resident());
  EXPECT_EQ(vectors.arrays(), nullptr);
  EXPECT_EQ(budget->used_bytes(), 72u);
  reader.reset();
  EXPECT_EQ(budget->used_bytes(), 0u);
  EXPECT_EQ((*vectors.ArraysOrRead())->keys, SomeArrays().keys);
  EXPECT_EQ(budget->used_bytes(), 0u) << "read for one use";
  ASSERT_TRUE(vectors.Load().ok());
  EXPECT_EQ(vectors.resident_bytes(), 72u);
  EXPECT_EQ(budget->used_bytes(), 72u);
}

TEST(SegmentVectorsTest, WhatCannotBeReadIsSaid) {
  const std::vector<uint32_t> row_begin = {0, 2, 3, 6};
  const auto source = std::make_shared<FakeSource>(SomeArrays(), row_begin);
  SegmentVectors vectors(source, 3, nullptr);
  EXPECT_EQ(vectors.bytes(), 72u);
  source->fails = true;
  EXPECT_EQ(vectors.Load().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(vectors.ArraysOrRead().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(vectors.resident());
}

class EvictedHeadTest : public ::testing::Test {
 protected:
  EvictedHeadTest() : fixture_(17) {
    for (int i = 0; i < 40; ++i) fixture_.head().AddTrainingQueries(fixture_.Queries());
    fixture_.Append(2700);
    fixture_.BuildAll();
  }

  void Evict() {
    for (const auto& segment : fixture_.head().Segments()) {
      const auto arrays = segment->vectors->arrays();
      sources_.push_back(std::make_shared<FakeSource>(*arrays, segment->clusters.row_begin));
      segment->vectors->AttachSource(sources_.back());
      ASSERT_GT(segment->vectors->Evict(segment->clusters.row_begin), 0u);
    }
  }

  HeadFixture fixture_;
  std::vector<std::shared_ptr<FakeSource>> sources_;
};

TEST_F(EvictedHeadTest, AnswersAreTheSameToTheLastBit) {
  const std::vector<float> queries = fixture_.Queries();
  const auto snapshot = fixture_.head().Snapshot();
  std::vector<HeadAnswer> before, after;
  const auto ask_all = [&](std::vector<HeadAnswer>& answers) {
    for (const AttendMode mode : {AttendMode::kExact, AttendMode::kIndexed}) {
      for (const PositionRange range : {PositionRange{}, PositionRange{100, 2500}}) {
        answers.push_back(fixture_.Attend(*snapshot, queries, range, mode));
      }
    }
    answers.push_back(fixture_.Attend(queries, {}, {SelectionGoal::kTopK, 40}));
  };
  ask_all(before);
  Evict();
  EXPECT_EQ(fixture_.head().memory_use().vectors_bytes, 0u);
  ask_all(after);
  uint64_t disk_bytes = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(after[i].output, before[i].output) << i;
    EXPECT_EQ(after[i].log_sum_exp, before[i].log_sum_exp) << i;
    EXPECT_EQ(after[i].coverage, before[i].coverage) << i;
    EXPECT_EQ(before[i].read.disk_bytes_read, 0u);
    disk_bytes += after[i].read.disk_bytes_read;
  }
  EXPECT_GT(disk_bytes, 0u);
}

TEST_F(EvictedHeadTest, FailuresAreSaidAndNothingElseHappens) {
  Evict();
  for (const auto& source : sources_) source->fails = true;
  const std::vector<float> queries = fixture_.Queries();
  HeadAnswer answer;
  for (const AttendMode mode : {AttendMode::kExact, AttendMode::kIndexed}) {
    const absl::Status status = fixture_.head().Snapshot()->Attend(
        {.queries = queries, .mode = mode, .selection = {SelectionGoal::kTopK, 40}},
        fixture_.scratch(), answer);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    std::vector<std::vector<SearchHit>> hits;
    ReadStatistics read;
    EXPECT_EQ(fixture_.head()
                  .Snapshot()
                  ->Search({.queries = queries, .mode = mode}, 5, fixture_.scratch(), hits, read)
                  .code(),
              absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(fixture_.head().Truncate(1000).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fixture_.head().Fork(1000).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fixture_.head().token_count(), 2700);
  for (const auto& source : sources_) source->fails = false;
  EXPECT_TRUE(fixture_.head().Truncate(1000).ok());
  EXPECT_EQ(fixture_.head().token_count(), 1000);
}

TEST_F(EvictedHeadTest, WhatAHeadLearntIsRestoredAndNothingElseIsTaken) {
  const std::string state = fixture_.head().LearntState();
  const HeadPlan plan = fixture_.head().Plan();
  ASSERT_GT(plan.answers_measured, 0u);
  const std::vector<float> queries = fixture_.Queries();
  const HeadAnswer before = fixture_.Attend(queries, {0, 2560}, {SelectionGoal::kTopK, 40});
  const auto segments = fixture_.head().Segments();
  const auto restore = [&](const std::string& bytes) {
    auto head = HeadIndex::Create(fixture_.shape(), fixture_.options());
    const absl::Status restored = head->RestoreLearntState(bytes, segments.size());
    for (const auto& segment : segments) EXPECT_TRUE(head->AddSegment(segment).ok());
    fixture_.set_head(std::move(head));
    return restored;
  };
  ASSERT_TRUE(restore(state).ok());
  EXPECT_EQ(fixture_.head().Plan().answers_measured, plan.answers_measured);
  EXPECT_EQ(fixture_.head().LearntState(), state);
  const HeadAnswer after = fixture_.Attend(queries, {0, 2560}, {SelectionGoal::kTopK, 40});
  EXPECT_EQ(after.output, before.output);
  EXPECT_FALSE(fixture_.head().AddSegment(segments.front()).ok()) << "it is held already";
  for (size_t size = 0; size < state.size(); size += 1 + state.size() / 97) {
    EXPECT_FALSE(restore(state.substr(0, size)).ok()) << size;
    EXPECT_TRUE(fixture_.head().LearnFromSegments().ok());
  }
  EXPECT_LT(fixture_.ErrorOf({0, 2560}, AttendMode::kIndexed), 0.7);
}

}  // namespace
}  // namespace attic
