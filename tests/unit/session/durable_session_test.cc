// Sessions with a data directory: what survives, and what is answered from disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/session/session_driver.h"
#include "tests/unit/session/session_model.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokens = kThreadSanitizer ? 1024 : 4096;

SessionStoreOptions DurableOptions(const std::string& directory) {
  SessionStoreOptions options = SmallOptions();
  options.disk.store.directory = directory;
  // Whether a scan is better depends on where the vectors happen to be.
  options.index.exact_when_better = false;
  options.disk.tier.interval = absl::Milliseconds(2);
  options.disk.tier.cache_bytes_min = 256 << 10;
  return options;
}

void RunDriver(const SessionStoreOptions& options, ElementType type) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  SessionDriver driver(seed, type, options);
  for (int step = 0; step < kDriverSteps && !::testing::Test::HasFatalFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    driver.Step();
    if (step % 50 == 49) driver.WaitForBuilds();
  }
}

class DurableModelTest : public ::testing::TestWithParam<ElementType> {};

TEST_P(DurableModelTest, RandomOperationsAndRestartsAgreeWithTheModel) {
  const TemporaryFolder folder;
  RunDriver(DurableOptions(folder.path()), GetParam());
}

TEST_P(DurableModelTest, TheSameWhenHardlyAnyVectorsStayInMemory) {
  const TemporaryFolder folder;
  SessionStoreOptions options = DurableOptions(folder.path());
  options.limits.memory_bytes_max = 512u << 20;  // builders of graphs take megabytes each
  options.disk.tier.high_watermark = 0.001;
  options.disk.tier.low_watermark = 0.0005;
  RunDriver(options, GetParam());
}

INSTANTIATE_TEST_SUITE_P(ElementTypes, DurableModelTest,
                         ::testing::Values(ElementType::kFloat32, ElementType::kBFloat16));

class DurableSessionTest : public ::testing::Test {
 protected:
  void Open(const SessionStoreOptions& options) {
    auto opened = SessionStore::Open(options);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    store_ = *std::move(opened);
    ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  }
  void Reopen() {
    store_.reset();
    Open(options_);
  }
  void OpenSession() {
    const auto opened = store_->OpenSession(request_);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
  }
  void Append(int64_t begin, size_t count) {
    const Tokens tokens = Tokens::Random(request_.fingerprint, count, random_);
    AppendBatch batch = tokens.Batch("s", 0, begin);
    const std::vector<float> sample = RandomFloats(2 * 4 * 16, random_);
    batch.query_sample = sample;
    const auto ack = store_->Append(batch, absl::Now() + absl::Seconds(30));
    ASSERT_TRUE(ack.ok()) << ack.status().message();
  }
  AttendAnswer Attend(const std::vector<float>& queries, AttendMode mode = AttendMode::kIndexed) {
    const AttendItem item{.session_id = "s", .mode = mode, .queries = queries};
    auto answers = store_->Attend({&item, 1}, absl::InfiniteFuture());
    EXPECT_TRUE(answers.ok());
    return answers->front();
  }

  const TemporaryFolder folder_;
  SessionStoreOptions options_ = DurableOptions(folder_.path());
  std::mt19937_64 random_{11};
  OpenSessionRequest request_ = {.session_id = "s",
                                 .fingerprint = SmallFingerprint(),
                                 .stored_layers = {0},
                                 .durability = Durability::kDurable};
  std::unique_ptr<SessionStore> store_;
};

// What a head learnt is kept as of its last calibration. Built one by one, segments are followed by
// one when there are 1, 2, 3, 4, 6, 8, 11, 14 of them.
TEST_F(DurableSessionTest, AnswersAreTheSameAfterARestartAsFarAsTheLastBit) {
  Open(options_);
  OpenSession();
  for (int64_t segment = 0; segment < 8; ++segment) {
    Append(256 * segment, 256);
    ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  }
  Append(256 * 8, 100);
  const std::vector<float> queries = RandomFloats(4 * 16, random_);
  const AttendAnswer before = Attend(queries);
  const auto plan = store_->PlanSession("s");
  ASSERT_TRUE(plan.ok());
  Reopen();
  const AttendAnswer after = Attend(queries);
  ASSERT_TRUE(after.status.ok()) << after.status.message();
  EXPECT_EQ(after.output, before.output);
  EXPECT_EQ(after.log_sum_exp, before.log_sum_exp);
  EXPECT_EQ(after.coverage, before.coverage);
  EXPECT_EQ(after.estimated_error, before.estimated_error);
  EXPECT_NE(after.boot_id, before.boot_id);
  const auto plan_after = store_->PlanSession("s");
  ASSERT_TRUE(plan_after.ok());
  EXPECT_EQ(plan_after->front().answers_measured, plan->front().answers_measured);
  EXPECT_EQ(plan_after->front().least_error, plan->front().least_error);
}

TEST_F(DurableSessionTest, TheGraphOverCentroidsIsBuiltAgain) {
  Open(options_);
  OpenSession();
  for (int64_t begin = 0; begin < kTokens; begin += 256) Append(begin, 256);
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  ASSERT_GT(store_->Status().memory.graph_bytes, 0u);
  Reopen();
  EXPECT_GT(store_->Status().memory.graph_bytes, 0u);
  EXPECT_EQ(store_->Status().pending_segments, 0u);
}

TEST_F(DurableSessionTest, AckedTokensBecomeDurableByThemselvesAndFlushWaitsForThem) {
  Open(options_);
  OpenSession();
  Append(0, 100);
  const auto flushed = store_->FlushSession("s", absl::Now() + absl::Seconds(30));
  ASSERT_TRUE(flushed.ok());
  EXPECT_EQ(flushed->durable_watermark, 100);
  EXPECT_EQ(flushed->durability, Durability::kDurable);
  Append(100, 50);
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (store_->DescribeSession("s")->durable_watermark < 150 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(store_->DescribeSession("s")->durable_watermark, 150);
}

TEST_F(DurableSessionTest, WithoutADirectoryNothingIsDurable) {
  Open(SmallOptions());
  EXPECT_EQ(store_->OpenSession(request_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DurableSessionTest, ASecondStoreOnTheDirectoryIsRefused) {
  Open(options_);
  const auto second = SessionStore::Open(options_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DurableSessionTest, OtherSegmentOptionsAreRefusedSessionBySession) {
  Open(options_);
  OpenSession();
  Append(0, 600);
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  store_.reset();
  SessionStoreOptions other = options_;
  other.index.segment_tokens = 512;
  Open(other);
  const AttendAnswer answer = Attend(RandomFloats(4 * 16, random_));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(store_->Status().damage.size(), 1u);
  Reopen();
  EXPECT_TRUE(Attend(RandomFloats(4 * 16, random_)).status.ok());
}

TEST_F(DurableSessionTest, DamageEndsASessionBeforeItAndTruncationGoesOnFromThere) {
  Open(options_);
  OpenSession();
  Append(0, 256);
  Append(256, 256);
  Append(512, 300);
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  const std::vector<float> queries = RandomFloats(4 * 16, random_);
  store_.reset();
  // Of each of two heads there are three files; the fourth written is the second of one head.
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_.path() + "/segments")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 6u);
  fs::resize_file(files[3], fs::file_size(files[3]) / 2);
  Open(options_);
  const auto description = store_->DescribeSession("s");
  ASSERT_TRUE(description.ok());
  EXPECT_EQ(description->watermark, 256);
  ASSERT_FALSE(store_->Status().damage.empty());
  EXPECT_EQ(store_->Status().damage.front().file, files[3].string());
  EXPECT_THAT(store_->Status().damage.back().what,
              ::testing::HasSubstr("damaged from position 256"));
  // What lies below is answered when it is asked for, all else refused.
  EXPECT_EQ(Attend(queries).status.code(), absl::StatusCode::kDataLoss);
  const AttendItem below{.session_id = "s", .range = {0, 256}, .queries = queries};
  EXPECT_TRUE(store_->Attend({&below, 1}, absl::InfiniteFuture())->front().status.ok());
  const Tokens tokens = Tokens::Random(request_.fingerprint, 10, random_);
  EXPECT_EQ(store_->Append(tokens.Batch("s", 0, 256), absl::InfiniteFuture()).status().code(),
            absl::StatusCode::kDataLoss);
  ASSERT_TRUE(store_->TruncateSession("s", 256).ok());
  Append(256, 700);
  EXPECT_TRUE(Attend(queries).status.ok());
  Reopen();
  EXPECT_EQ(store_->DescribeSession("s")->watermark, 956);
  EXPECT_TRUE(Attend(queries).status.ok());
}

TEST_F(DurableSessionTest, EvictedVectorsAreReadForEveryKindOfQuestion) {
  options_.limits.memory_bytes_max = 64u << 20;
  options_.disk.tier.high_watermark = 0.01;
  options_.disk.tier.low_watermark = 0.005;
  options_.index.exact_scan_tokens_max = 0;
  Open(options_);
  OpenSession();
  for (int64_t begin = 0; begin < kTokens; begin += 256) Append(begin, 256);
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (store_->Status().memory.vectors_bytes > 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  const MemoryUse use = store_->Status().memory;
  EXPECT_EQ(use.vectors_bytes, 0u);
  EXPECT_EQ(use.evicted_bytes, static_cast<uint64_t>(kTokens) * 2 * (16 + 8) * sizeof(float));
  const std::vector<float> queries = RandomFloats(4 * 16, random_);
  const AttendAnswer exact = Attend(queries, AttendMode::kExact);
  EXPECT_GT(exact.read.disk_bytes_read, 0u);
  for (const SelectionPolicy policy : {SelectionPolicy{}, SelectionPolicy{SelectionGoal::kTopK, 20},
                                       SelectionPolicy{SelectionGoal::kTokenBudget, 2000},
                                       SelectionPolicy{SelectionGoal::kCoverage, 0.5},
                                       SelectionPolicy{SelectionGoal::kInnerProductRange, 2}}) {
    const AttendItem item{.session_id = "s", .selection = policy, .queries = queries};
    const auto answers = store_->Attend({&item, 1}, absl::InfiniteFuture());
    ASSERT_TRUE(answers->front().status.ok()) << answers->front().status.message();
    for (size_t q = 0; q < 4; ++q) {
      EXPECT_NEAR(answers->front().log_sum_exp[q], exact.log_sum_exp[q], 0.2);
    }
  }
  const SearchRequest search{.session_id = "s", .k = 5, .with_vectors = true, .queries = queries};
  SearchRequest exact_search = search;
  exact_search.mode = AttendMode::kExact;
  const auto found = store_->Search(search, absl::InfiniteFuture());
  const auto expected = store_->Search(exact_search, absl::InfiniteFuture());
  ASSERT_TRUE(found.ok() && expected.ok());
  for (size_t q = 0; q < 4; ++q) {
    EXPECT_EQ(found->hits[q].front().position, expected->hits[q].front().position);
  }
  EXPECT_EQ(found->keys.front().size(), 5 * 16 * sizeof(float));
  EXPECT_GT(store_->Status().cache_hits + store_->Status().cache_misses, 0u);
}

TEST_F(DurableSessionTest, MemorySessionsSpillAndTheirFilesGoWithThem) {
  options_.limits.memory_bytes_max = 64u << 20;
  options_.disk.tier.high_watermark = 0.01;
  options_.disk.tier.low_watermark = 0.005;
  request_.durability = Durability::kMemory;
  Open(options_);
  OpenSession();
  for (int64_t begin = 0; begin < kTokens; begin += 256) Append(begin, 256);
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (store_->Status().memory.evicted_bytes == 0 && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_GT(store_->Status().memory.evicted_bytes, 0u);
  EXPECT_TRUE(Attend(RandomFloats(4 * 16, random_), AttendMode::kExact).status.ok());
  Reopen();
  EXPECT_EQ(store_->Status().sessions, 0u);
  EXPECT_TRUE(fs::is_empty(folder_.path() + "/segments"));
}

}  // namespace
}  // namespace attic
