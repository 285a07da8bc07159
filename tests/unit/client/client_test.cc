// The same tests over the network and in this process: one interface, same answers, same errors.
#include "client/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/local_client.h"
#include "server/service/store_server.h"
#include "tests/unit/client/client_test_data.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 20240607;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

struct Remote {
  explicit Remote(const SessionStoreOptions& options) {
    auto started = StoreServer::Start({.listen_address = "127.0.0.1:0", .store = options});
    EXPECT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    auto connected = ConnectClient({.address = server->address()});
    EXPECT_TRUE(connected.ok()) << connected.status();
    client = *std::move(connected);
  }
  std::unique_ptr<StoreServer> server;
  std::unique_ptr<Client> client;
};

struct Local {
  explicit Local(const SessionStoreOptions& options) : client(MakeLocalClient(options)) {}
  std::unique_ptr<Client> client;
};

template <typename Place>
class ClientTest : public ::testing::Test {
 protected:
  ClientTest() : random_(kSeed), layer_(3000, random_), place_(SmallStoreOptions()) {
    std::cout << "seed " << kSeed << '\n';
  }

  Client& client() { return *place_.client; }

  void Open(const std::string& id) {
    const auto session = client().OpenSession(
        {.session_id = id, .fingerprint = TestFingerprint(), .stored_layers = {1, 3}});
    ASSERT_TRUE(session.ok()) << session.status();
  }

  // Appends layer_ to layers 1 and 3 in batches of 500.
  void Fill(const std::string& id) {
    Open(id);
    auto stream = client().OpenAppendStream();
    ASSERT_TRUE(stream.ok()) << stream.status();
    for (const uint32_t layer : {1, 3}) {
      for (int64_t at = 0; at < 3000; at += 500) {
        const absl::Status status = (*stream)->Append(layer_.Batch(id, layer, at, 500));
        ASSERT_TRUE(status.ok()) << status;
      }
    }
    const auto ack = (*stream)->Flush(Soon());
    ASSERT_TRUE(ack.ok()) << ack.status();
    EXPECT_EQ(ack->watermark, 3000);
  }

  void WaitForIndex() {
    for (;;) {
      const auto status = client().Status();
      ASSERT_TRUE(status.ok()) << status.status();
      if (status->pending_segments == 0) return;
      absl::SleepFor(absl::Milliseconds(5));
    }
  }

  std::vector<float> Queries() { return RandomFloats(4 * 16, random_); }

  absl::StatusOr<AttendAnswer> AttendOne(const AttendItem& item, absl::Time deadline = Soon()) {
    auto answers = client().Attend({&item, 1}, deadline);
    if (!answers.ok()) return answers.status();
    EXPECT_EQ(answers->size(), 1u);
    if (!answers->front().status.ok()) return answers->front().status;
    return answers->front();
  }

  std::mt19937_64 random_;
  TestLayer layer_;
  Place place_;
};

using Places = ::testing::Types<Remote, Local>;
TYPED_TEST_SUITE(ClientTest, Places);

TYPED_TEST(ClientTest, PrefixesLeasesAndPins) {
  Client& client = this->client();
  this->Fill("a");
  std::vector<uint32_t> tokens(2 * kPrefixBlockTokens);
  const std::vector<PrefixHash> hashes = PrefixHashes(tokens);
  ASSERT_TRUE(client.ExtendPrefix("a", 0, std::span(hashes).first(1)).ok());
  ASSERT_TRUE(client.ExtendPrefix("a", 1, std::span(hashes).subspan(1)).ok());
  EXPECT_EQ(client.ExtendPrefix("a", 3, hashes).status().code(), absl::StatusCode::kOutOfRange);
  const auto a = client.DescribeSession("a");
  ASSERT_TRUE(a.ok());
  OpenSessionRequest request{.session_id = "b",
                             .fingerprint = TestFingerprint(),
                             .ttl_seconds = 1000,
                             .prefix_hashes = hashes,
                             .reuse_prefix = true};
  for (const LayerDescription& layer : a->layers) request.stored_layers.push_back(layer.layer);
  const auto b = client.OpenSession(request);
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_TRUE(b->created);
  EXPECT_EQ(b->reused_tokens, 512);
  EXPECT_EQ(b->watermark, 512);
  EXPECT_GT(b->lease_seconds_left, 900);
  EXPECT_FALSE(client.OpenSession(request)->created);

  const auto pinned = client.PinSession("b", true);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_TRUE(pinned->pinned);
  EXPECT_FALSE(client.PinSession("b", false)->pinned);
  EXPECT_TRUE(client.RenewLease("b").ok());
  EXPECT_EQ(client.RenewLease("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client.FlushSession("b", Soon()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TYPED_TEST(ClientTest, SessionsOpenListForkTruncateClose) {
  Client& client = this->client();
  this->Fill("b");
  this->Open("a");
  const auto fork = client.ForkSession("b", {.position = 1000, .new_session_id = "c"});
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_EQ(fork->watermark, 1000);
  const auto truncated = client.TruncateSession("b", 700);
  ASSERT_TRUE(truncated.ok()) << truncated.status();
  EXPECT_EQ(truncated->watermark, 700);

  auto sessions = client.ListSessions();
  ASSERT_TRUE(sessions.ok()) << sessions.status();
  ASSERT_EQ(sessions->size(), 3u);
  EXPECT_EQ((*sessions)[0].session_id, "a");
  EXPECT_EQ((*sessions)[1].watermark, 700);
  EXPECT_EQ((*sessions)[2].watermark, 1000);
  EXPECT_EQ((*sessions)[2].fingerprint, TestFingerprint());
  ASSERT_EQ((*sessions)[2].layers.size(), 2u);
  EXPECT_EQ((*sessions)[2].layers[1].layer, 3u);

  const auto plans = client.PlanSession("c");
  ASSERT_TRUE(plans.ok()) << plans.status();
  const Fingerprint& fingerprint = (*sessions)[2].fingerprint;
  ASSERT_EQ(plans->size(), 2 * fingerprint.kv_heads);
  EXPECT_EQ(plans->back().layer, 3u);
  EXPECT_EQ(plans->back().kv_head, fingerprint.kv_heads - 1);
  EXPECT_EQ(client.PlanSession("nobody").status().code(), absl::StatusCode::kNotFound);

  EXPECT_TRUE(client.CloseSession("b").ok());
  EXPECT_EQ(client.DescribeSession("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client.DescribeSession("c")->watermark, 1000);
  EXPECT_EQ(client.Status()->sessions, 2u);
}

TYPED_TEST(ClientTest, ManySessionsAreListedInOrder) {
  for (int i = 0; i < 1500; ++i) this->Open(absl::StrCat("s", 10000 + i));
  const auto sessions = this->client().ListSessions();
  ASSERT_TRUE(sessions.ok()) << sessions.status();
  ASSERT_EQ(sessions->size(), 1500u);
  for (int i = 0; i < 1500; ++i) {
    EXPECT_EQ((*sessions)[i].session_id, absl::StrCat("s", 10000 + i));
  }
}

TYPED_TEST(ClientTest, AttendEqualsTheOracle) {
  this->Fill("s");
  this->WaitForIndex();
  for (const PositionRange range : {PositionRange{0, 3000}, {0, 700}, {1234, 2900}, {2999, 3000}}) {
    const std::vector<float> queries = this->Queries();
    std::vector<double> log_sum_exp;
    const std::vector<double> want = this->layer_.Oracle(queries, range, log_sum_exp);
    AttendItem item{.session_id = "s",
                    .layer = 3,
                    .range = range,
                    .min_watermark = 3000,
                    .mode = AttendMode::kExact,
                    .queries = queries};
    const auto exact = this->AttendOne(item);
    ASSERT_TRUE(exact.ok()) << exact.status();
    EXPECT_LT(RelativeError(exact->output, want), 1e-5);
    for (int head = 0; head < 4; ++head) {
      EXPECT_NEAR(exact->log_sum_exp[head], log_sum_exp[head], 1e-4);
      EXPECT_NEAR(exact->coverage[head], 1.0f, 1e-5);
    }
    EXPECT_EQ(exact->range, range);
    EXPECT_FALSE(exact->boot_id.empty());
    EXPECT_GT(exact->read.bytes_read, 0u);

    item.mode = AttendMode::kIndexed;
    const auto indexed = this->AttendOne(item);
    ASSERT_TRUE(indexed.ok()) << indexed.status();
    EXPECT_FALSE(indexed->degraded);
    // Random keys have no structure to find, so the estimate is all there is beyond the minimum.
    EXPECT_LT(RelativeError(indexed->output, want), 0.5);
  }
}

TYPED_TEST(ClientTest, ItemsAreAnsweredInOrderAndFailAlone) {
  this->Fill("s");
  const std::vector<float> queries = this->Queries();
  const std::vector<float> too_few(7);
  const auto item = [&](const std::string& id, std::span<const float> q) {
    return AttendItem{.session_id = id, .layer = 1, .mode = AttendMode::kExact, .queries = q};
  };
  const std::vector<AttendItem> items = {item("s", queries), item("none", queries),
                                         item("s", too_few), item("s", queries)};
  const auto answers = this->client().Attend(items, Soon());
  ASSERT_TRUE(answers.ok()) << answers.status();
  ASSERT_EQ(answers->size(), 4u);
  EXPECT_TRUE((*answers)[0].status.ok());
  EXPECT_EQ((*answers)[1].status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*answers)[2].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string((*answers)[2].status.message()), HasSubstr("queries"));
  EXPECT_TRUE((*answers)[3].status.ok());
  EXPECT_EQ((*answers)[0].output, (*answers)[3].output);
}

TYPED_TEST(ClientTest, EverySelectionIsAnswered) {
  this->Fill("s");
  this->WaitForIndex();
  const std::vector<float> queries = this->Queries();
  for (const SelectionPolicy selection : {SelectionPolicy{},
                                          {SelectionGoal::kTopK, 100},
                                          {SelectionGoal::kTokenBudget, 500},
                                          {SelectionGoal::kCoverage, 0.9},
                                          {SelectionGoal::kMaxError, 0.05},
                                          {SelectionGoal::kInnerProductRange, 3}}) {
    SCOPED_TRACE(SelectionGoalName(selection.goal));
    AttendItem item{.session_id = "s", .layer = 1, .selection = selection, .queries = queries};
    const auto indexed = this->AttendOne(item);
    ASSERT_TRUE(indexed.ok()) << indexed.status();
    ASSERT_EQ(indexed->estimated_error.size(), 4u);
    for (const float error : indexed->estimated_error) EXPECT_GE(error, 0.0f);
    item.mode = AttendMode::kExact;  // goes all the way, whatever the selection
    const auto exact = this->AttendOne(item);
    ASSERT_TRUE(exact.ok()) << exact.status();
    EXPECT_EQ(exact->estimated_error, std::vector<float>(4, 0.0f));
    EXPECT_EQ(exact->read.exact_tokens, 2u * 3000);
    if (selection.goal == SelectionGoal::kMaxError) continue;
    const auto found = this->client().Search(
        {.session_id = "s", .layer = 1, .k = 5, .selection = selection, .queries = queries},
        Soon());
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->hits.size(), 4u);
  }
}

TYPED_TEST(ClientTest, BadSelectionsAreRefused) {
  this->Fill("s");
  const std::vector<float> queries = this->Queries();
  const double top_k_max = Limits().selection_top_k_max;
  const auto refused = [&](const absl::Status& status, const SelectionPolicy& selection) {
    const bool over = selection.goal == SelectionGoal::kTopK && selection.amount > top_k_max;
    EXPECT_EQ(status.code(),
              over ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInvalidArgument)
        << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("selection.", SelectionGoalName(selection.goal))));
  };
  for (const SelectionPolicy selection : {SelectionPolicy{SelectionGoal::kTopK, 0},
                                          {SelectionGoal::kTopK, -1},
                                          {SelectionGoal::kTopK, 1.5},
                                          {SelectionGoal::kTopK, top_k_max + 1},
                                          {SelectionGoal::kTopK, 1e20},
                                          {SelectionGoal::kTokenBudget, 0},
                                          {SelectionGoal::kTokenBudget, NAN},
                                          {SelectionGoal::kCoverage, 0},
                                          {SelectionGoal::kCoverage, 1.01},
                                          {SelectionGoal::kCoverage, NAN},
                                          {SelectionGoal::kMaxError, 0},
                                          {SelectionGoal::kMaxError, 1.01},
                                          {SelectionGoal::kMaxError, NAN},
                                          {SelectionGoal::kInnerProductRange, -0.1},
                                          {SelectionGoal::kInnerProductRange, INFINITY},
                                          {SelectionGoal::kInnerProductRange, NAN}}) {
    const AttendItem item{
        .session_id = "s", .layer = 1, .selection = selection, .queries = queries};
    refused(this->AttendOne(item).status(), selection);
    const auto found = this->client().Search(
        {.session_id = "s", .layer = 1, .k = 5, .selection = selection, .queries = queries},
        Soon());
    refused(found.status(), selection);
  }
  const SelectionPolicy of_an_output{SelectionGoal::kMaxError, 0.1};
  const auto found = this->client().Search(
      {.session_id = "s", .layer = 1, .k = 5, .selection = of_an_output, .queries = queries},
      Soon());
  refused(found.status(), of_an_output);
}

TYPED_TEST(ClientTest, BadRequestsAreRefused) {
  this->Fill("s");
  Client& client = this->client();
  const std::vector<float> queries = this->Queries();
  AttendItem item{.session_id = "s", .layer = 1, .queries = queries};
  item.min_watermark = 3001;
  EXPECT_EQ(this->AttendOne(item).status().code(), absl::StatusCode::kFailedPrecondition);
  const std::vector<AttendItem> other_layers = {
      {.session_id = "s", .layer = 1, .queries = queries},
      {.session_id = "s", .layer = 3, .queries = queries}};
  EXPECT_EQ(client.Attend(other_layers, Soon()).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<AttendItem> too_many(Limits().attend_items_max + 1, item);
  EXPECT_EQ(client.Attend(too_many, Soon()).status().code(), absl::StatusCode::kResourceExhausted);

  Fingerprint other = TestFingerprint();
  other.revision = "2";
  EXPECT_EQ(client.OpenSession({.session_id = "s", .fingerprint = other, .stored_layers = {1, 3}})
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client.ForkSession("s", {.position = 3001, .new_session_id = "t"}).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client.CloseSession("none").code(), absl::StatusCode::kNotFound);
}

TYPED_TEST(ClientTest, TheFirstAppendErrorEndsTheStream) {
  this->Open("s");
  auto stream = this->client().OpenAppendStream();
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE((*stream)->Append(this->layer_.Batch("s", 1, 0, 100)).ok());
  (void)(*stream)->Append(this->layer_.Batch("s", 1, 200, 100));  // a gap
  (void)(*stream)->Append(this->layer_.Batch("none", 1, 0, 100));
  const auto ack = (*stream)->Flush(Soon());
  EXPECT_EQ(ack.status().code(), absl::StatusCode::kOutOfRange) << ack.status();
  EXPECT_EQ((*stream)->Append(this->layer_.Batch("s", 1, 100, 100)).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(this->client().DescribeSession("s")->layers[0].watermark, 100);
}

TYPED_TEST(ClientTest, SearchFindsTheBestKeys) {
  this->Fill("s");
  this->WaitForIndex();
  const std::vector<float> queries = this->Queries();
  const auto answer = this->client().Search({.session_id = "s",
                                             .layer = 3,
                                             .mode = AttendMode::kExact,
                                             .k = 5,
                                             .with_vectors = true,
                                             .queries = queries},
                                            Soon());
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->hits.size(), 4u);
  for (uint32_t head = 0; head < 4; ++head) {
    ASSERT_EQ(answer->hits[head].size(), 5u);
    const std::vector<float> keys =
        this->layer_.HeadRows(this->layer_.keys, head / 2, 16, {0, 3000});
    const auto score = [&](int64_t i) {
      double sum = 0;
      for (int d = 0; d < 16; ++d) sum += queries[head * 16 + d] * keys[i * 16 + d];
      return sum;
    };
    int64_t best = 0;
    for (int64_t i = 1; i < 3000; ++i) best = score(i) > score(best) ? i : best;
    EXPECT_EQ(answer->hits[head][0].position, best);
    EXPECT_NEAR(answer->hits[head][0].score, score(best), 1e-4);
    ASSERT_EQ(answer->keys[head].size(), 5 * 16 * sizeof(float));
    EXPECT_EQ(std::memcmp(answer->keys[head].data(), keys.data() + best * 16, 16 * sizeof(float)),
              0);
  }
  EXPECT_EQ(this->client()
                .Search({.session_id = "s", .layer = 3, .k = 0, .queries = queries}, Soon())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TYPED_TEST(ClientTest, ManyThreadsAtOnce) {
  this->Fill("s");
  constexpr int kThreads = 8, kRequests = 60;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(kSeed + t);
      for (int i = 0; i < kRequests; ++i) {
        const std::vector<float> queries = RandomFloats(4 * 16, random);
        const PositionRange range{0, static_cast<int64_t>(1 + random() % 300)};
        std::vector<double> log_sum_exp;
        const std::vector<double> want = this->layer_.Oracle(queries, range, log_sum_exp);
        const auto answer = this->AttendOne({.session_id = "s",
                                             .layer = 1,
                                             .range = range,
                                             .mode = AttendMode::kExact,
                                             .queries = queries});
        if (!answer.ok() || !(RelativeError(answer->output, want) < 1e-5)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TYPED_TEST(ClientTest, ADeadlineInThePastEndsAtOnce) {
  this->Fill("s");
  const std::vector<float> queries = this->Queries();
  const auto start = absl::Now();
  const auto answer = this->AttendOne(
      {.session_id = "s", .layer = 1, .mode = AttendMode::kExact, .queries = queries},
      absl::InfinitePast());
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  // In this process there is time for an answer; over the network there is not.
  if (!answer.ok()) {
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kDeadlineExceeded);
  }
}

}  // namespace
}  // namespace attic
