// Random operations on a store, compared after each one with SessionModel.
#include "server/session/session_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/session/session_driver.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class SessionStoreModelTest : public ::testing::TestWithParam<ElementType> {};

TEST_P(SessionStoreModelTest, RandomOperationsAgreeWithTheModel) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  SessionDriver driver(seed, GetParam(), SmallOptions());
  for (int step = 0; step < kDriverSteps && !::testing::Test::HasFatalFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    driver.Step();
    if (step % 50 == 49) driver.WaitForBuilds();
  }
}

INSTANTIATE_TEST_SUITE_P(ElementTypes, SessionStoreModelTest,
                         ::testing::Values(ElementType::kFloat32, ElementType::kBFloat16,
                                           ElementType::kFloat16));

class SessionStoreTest : public ::testing::Test {
 protected:
  void Open(const SessionStoreOptions& options) {
    store_ = SessionStore::Create(options);
    ASSERT_TRUE(store_->OpenSession(request_).ok());
  }

  absl::Status Append(int64_t begin, size_t count) {
    const Tokens tokens = Tokens::Random(request_.fingerprint, count, random_);
    return store_->Append(tokens.Batch("s", 0, begin), absl::Now()).status();
  }

  std::mt19937_64 random_{7};
  OpenSessionRequest request_ = {
      .session_id = "s", .fingerprint = SmallFingerprint(), .stored_layers = {0}};
  std::unique_ptr<SessionStore> store_;
};

TEST_F(SessionStoreTest, OpeningAgainReturnsTheSessionAndRefusesAnotherModel) {
  Open(SmallOptions());
  ASSERT_TRUE(Append(0, 10).ok());
  const auto again = store_->OpenSession(request_);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->watermark, 10);
  request_.fingerprint.revision = "2";
  const absl::Status refused = store_->OpenSession(request_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(refused), HasSubstr("fingerprint.revision"));
}

TEST_F(SessionStoreTest, MemoryLimitIsNamedAndNothingIsHalfApplied) {
  SessionStoreOptions options = SmallOptions();
  options.limits.memory_bytes_max = 300'000;
  Open(options);
  absl::Status status;
  int64_t watermark = 0;
  while (status.ok() && watermark < 100'000) {
    status = Append(watermark, 100);
    if (status.ok()) watermark += 100;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr("memory_bytes_max"));
  EXPECT_EQ(store_->DescribeSession("s")->watermark, watermark);
  // Closing gives the memory back.
  ASSERT_TRUE(store_->CloseSession("s").ok());
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  ASSERT_TRUE(store_->OpenSession(request_).ok());
  EXPECT_TRUE(Append(0, 100).ok());
}

TEST_F(SessionStoreTest, ForksShareWhatIsCharged) {
  SessionStoreOptions options = SmallOptions();
  options.limits.memory_bytes_max = 2'000'000;
  options.index.centroid_graph = true;
  options.index.graph_clusters_min = 1 << 20;  // a graph's builder alone takes more
  Open(options);
  for (int64_t begin = 0; begin < 4096; begin += 256) ASSERT_TRUE(Append(begin, 256).ok());
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  // 4,096 tokens take about 786,000 bytes: ten copies would not fit.
  for (int i = 0; i < 10; ++i) {
    const auto fork =
        store_->ForkSession("s", {.position = 4096, .new_session_id = absl::StrCat("fork", i)});
    ASSERT_TRUE(fork.ok()) << i << ": " << fork.status().message();
  }
}

TEST_F(SessionStoreTest, AppendsWaitForTheBuilder) {
  SessionStoreOptions options = SmallOptions();
  options.limits.pending_segments_max = 0;
  Open(options);
  ASSERT_TRUE(Append(0, 5000).ok());
  // One thread cannot have built nineteen segments of two heads by now.
  EXPECT_EQ(Append(5000, 1).code(), absl::StatusCode::kDeadlineExceeded);
  const Tokens tokens = Tokens::Random(request_.fingerprint, 1, random_);
  EXPECT_TRUE(store_->Append(tokens.Batch("s", 0, 5000), absl::Now() + absl::Seconds(60)).ok());
}

TEST_F(SessionStoreTest, BatchLimitsAndItemErrors) {
  SessionStoreOptions options = SmallOptions();
  options.limits.attend_items_max = 3;
  Open(options);
  ASSERT_TRUE(Append(0, 10).ok());
  const std::vector<float> queries = RandomFloats(64, random_);
  std::vector<AttendItem> items(4, {.session_id = "s", .layer = 0, .queries = queries});
  EXPECT_THAT(Message(store_->Attend(items, absl::InfiniteFuture()).status()),
              HasSubstr("attend_items_max"));
  items.resize(3);
  items[0].session_id = "other";
  items[1].min_watermark = 11;
  const auto answers = store_->Attend(items, absl::InfiniteFuture());
  ASSERT_TRUE(answers.ok());
  EXPECT_EQ((*answers)[0].status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*answers)[1].status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE((*answers)[2].status.ok());
  EXPECT_EQ((*answers)[2].boot_id, store_->Status().boot_id);
}

TEST_F(SessionStoreTest, SelectionsAreCheckedItemByItem) {
  SessionStoreOptions options = SmallOptions();
  options.limits.selection_top_k_max = 50;
  Open(options);
  ASSERT_TRUE(Append(0, 10).ok());
  const std::vector<float> queries = RandomFloats(64, random_);
  std::vector<AttendItem> items(4, {.session_id = "s", .layer = 0, .queries = queries});
  items[0].selection = {SelectionGoal::kMaxError, 0.1};
  items[1].selection = {SelectionGoal::kTopK, 51};
  items[2].selection = {SelectionGoal::kCoverage, NAN};
  items[3] = items[2];
  items[3].mode = AttendMode::kExact;  // without effect, but checked
  const auto answers = store_->Attend(items, absl::InfiniteFuture());
  ASSERT_TRUE(answers.ok());
  ASSERT_TRUE((*answers)[0].status.ok()) << (*answers)[0].status;
  EXPECT_EQ((*answers)[0].estimated_error, std::vector<float>(4, 0.0f));
  EXPECT_EQ((*answers)[1].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message((*answers)[1].status), HasSubstr("selection_top_k_max"));
  for (const int bad : {2, 3}) {
    EXPECT_EQ((*answers)[bad].status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message((*answers)[bad].status), HasSubstr("selection.coverage"));
  }
  SearchRequest search{.session_id = "s", .layer = 0, .k = 3, .queries = queries};
  search.selection = {SelectionGoal::kMaxError, 0.1};
  EXPECT_THAT(Message(store_->Search(search, absl::InfiniteFuture()).status()),
              HasSubstr("selection.max_error"));
  search.selection = {SelectionGoal::kInnerProductRange, -1};
  EXPECT_THAT(Message(store_->Search(search, absl::InfiniteFuture()).status()),
              HasSubstr("selection.inner_product_range"));
}

TEST_F(SessionStoreTest, SelectionsReachTheIndexExceptWithExact) {
  Open(SmallOptions());
  ASSERT_TRUE(Append(0, 5000).ok());
  ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  const std::vector<float> queries = RandomFloats(64, random_);
  std::vector<AttendItem> items(4, {.session_id = "s", .layer = 0, .queries = queries});
  items[0].selection = {SelectionGoal::kTokenBudget, 100};
  items[1].selection = {SelectionGoal::kCoverage, 1};
  items[2].selection = items[0].selection;
  items[2].mode = items[3].mode = AttendMode::kExact;
  const auto answers = store_->Attend(items, absl::InfiniteFuture());
  ASSERT_TRUE(answers.ok());
  EXPECT_LT((*answers)[0].read.bytes_read, (*answers)[1].read.bytes_read);
  EXPECT_LT((*answers)[0].coverage[0], (*answers)[1].coverage[0]);
  EXPECT_EQ((*answers)[2].output, (*answers)[3].output);
  EXPECT_EQ((*answers)[2].read.exact_tokens, (*answers)[3].read.exact_tokens);
}

TEST_F(SessionStoreTest, AnswersFitAMessage) {
  SessionStoreOptions options = SmallOptions();
  const Fingerprint& f = request_.fingerprint;
  // The output, log-sum-exp, coverage and estimated error of two items.
  options.limits.message_bytes_max = 2 * sizeof(float) * f.q_heads * (f.value_dim + 3);
  Open(options);
  ASSERT_TRUE(Append(0, 10).ok());
  const std::vector<float> queries = RandomFloats(64, random_);
  std::vector<AttendItem> items(2, {.session_id = "s", .layer = 0, .queries = queries});
  EXPECT_TRUE(store_->Attend(items, absl::InfiniteFuture()).ok());
  items.push_back(items[0]);
  EXPECT_THAT(Message(store_->Attend(items, absl::InfiniteFuture()).status()),
              HasSubstr("message_bytes_max"));
}

TEST_F(SessionStoreTest, SearchFindsTheBestKeysWithTheirVectors) {
  Open(SmallOptions());
  const Fingerprint& f = request_.fingerprint;
  const Tokens tokens = Tokens::Random(f, 700, random_);
  ASSERT_TRUE(store_->Append(tokens.Batch("s", 0, 0), absl::Now()).ok());
  const std::vector<float> queries = RandomFloats(f.q_heads * f.head_dim, random_);
  const auto answer = store_->Search({.session_id = "s",
                                      .layer = 0,
                                      .mode = AttendMode::kExact,
                                      .k = 5,
                                      .with_vectors = true,
                                      .queries = queries},
                                     absl::InfiniteFuture());
  ASSERT_TRUE(answer.ok()) << answer.status().message();
  const auto* keys = reinterpret_cast<const float*>(tokens.keys.data());
  for (uint32_t q = 0; q < f.q_heads; ++q) {
    std::vector<std::pair<float, int64_t>> scores;
    for (int64_t i = 0; i < 700; ++i) {
      float score = 0;
      for (uint32_t d = 0; d < f.head_dim; ++d) {
        score +=
            queries[q * f.head_dim + d] * keys[(i * f.kv_heads + q / f.group()) * f.head_dim + d];
      }
      scores.push_back({-score, i});
    }
    std::sort(scores.begin(), scores.end());
    ASSERT_EQ(answer->hits[q].size(), 5u);
    const auto* found = reinterpret_cast<const float*>(answer->keys[q].data());
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(answer->hits[q][i].position, scores[i].second);
      EXPECT_NEAR(answer->hits[q][i].score, -scores[i].first, 1e-4);
      EXPECT_EQ(found[i * f.head_dim],
                keys[(scores[i].second * f.kv_heads + q / f.group()) * f.head_dim]);
    }
  }
}

TEST_F(SessionStoreTest, ListingIsOrderedAndPaged) {
  Open(SmallOptions());
  for (const char* id : {"b", "c", "a"}) {
    request_.session_id = id;
    ASSERT_TRUE(store_->OpenSession(request_).ok());
  }
  const auto page = store_->ListSessions("a", 2);
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].session_id, "b");
  EXPECT_EQ(page[1].session_id, "c");
}

}  // namespace
}  // namespace attic
