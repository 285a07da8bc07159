// Everything at once on few sessions, for the thread sanitizer; and answers that must hold however
// the calls interleave.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

constexpr int64_t kTokens = 3000;

SessionStoreOptions Options() {
  SessionStoreOptions options;
  options.threads = 2;
  options.build_threads = 2;
  options.index.segment_tokens = 256;
  options.index.exact_scan_tokens_max = 512;
  options.index.centroid_graph = true;
  options.index.graph_clusters_min = 32;
  options.limits.pending_segments_max = 2;
  return options;
}

class ConcurrencyTest : public ::testing::Test {
 protected:
  ConcurrencyTest() : store_(SessionStore::Create(Options())) {}

  void Open(const std::string& id) {
    ASSERT_TRUE(
        store_->OpenSession({.session_id = id, .fingerprint = f_, .stored_layers = {0, 1}}).ok());
  }

  // Values that are all one: the output of attention over any set of tokens is one.
  Tokens Ones(size_t count, std::mt19937_64& random) {
    Tokens tokens = Tokens::Random(f_, count, random);
    const std::vector<float> ones(count * f_.kv_heads * f_.value_dim, 1.0f);
    FromFloat32(ones, f_.element_type, tokens.values.data());
    return tokens;
  }

  const Fingerprint f_ = SmallFingerprint(ElementType::kBFloat16);
  std::unique_ptr<SessionStore> store_;
};

void CheckOnes(const AttendAnswer& answer) {
  ASSERT_TRUE(answer.status.ok()) << answer.status.message();
  if (answer.range.begin == answer.range.end) return;
  for (const float value : answer.output) ASSERT_NEAR(value, 1.0f, 0.02f);
  for (const float lse : answer.log_sum_exp) ASSERT_TRUE(std::isfinite(lse));
}

TEST_F(ConcurrencyTest, AttendsSeeWholeHistoriesWhileSessionsChange) {
  Open("s");
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (uint32_t layer = 0; layer < 2; ++layer) {
    threads.emplace_back([&, layer] {
      std::mt19937_64 random(layer);
      int64_t position = 0;
      while (position < kTokens) {
        const Tokens tokens = Ones(1 + random() % 200, random);
        const auto ack =
            store_->Append(tokens.Batch("s", layer, position), absl::Now() + absl::Seconds(60));
        if (ack.ok()) {
          position = ack->watermark;
        } else {
          // A truncation took the watermark back.
          ASSERT_EQ(ack.status().code(), absl::StatusCode::kOutOfRange) << ack.status().message();
          position = store_->DescribeSession("s")->layers[layer].watermark;
        }
      }
    });
  }
  threads.emplace_back([&] {
    std::mt19937_64 random(11);
    for (int i = 0; !done; ++i) {
      const int64_t highest = store_->DescribeSession("s")->layers[0].watermark;
      (void)store_->TruncateSession("s", std::max<int64_t>(0, highest - random() % 50));
      const std::string fork = absl::StrCat("fork", i);
      if (store_
              ->ForkSession(
                  "s", {.position = static_cast<int64_t>(random() % 200), .new_session_id = fork})
              .ok()) {
        (void)store_->CloseSession(fork);
      }
      (void)store_->Status();
      (void)store_->ListSessions("", 10);
      absl::SleepFor(absl::Milliseconds(5));
    }
  });
  for (int reader = 0; reader < 2; ++reader) {
    threads.emplace_back([&, reader] {
      std::mt19937_64 random(100 + reader);
      const std::vector<float> queries = RandomFloats(f_.q_heads * f_.head_dim, random);
      while (!done) {
        std::vector<AttendItem> items(3, {.session_id = "s", .queries = queries});
        items[0].layer = items[1].layer = static_cast<uint32_t>(reader);
        items[1].mode = AttendMode::kExact;
        items[2].range = {.begin = 100, .end = 1000};
        const auto answers = store_->Attend(items, absl::InfiniteFuture());
        ASSERT_TRUE(answers.ok());
        for (const AttendAnswer& answer : *answers) CheckOnes(answer);
      }
    });
  }
  threads[0].join();
  threads[1].join();
  done = true;
  for (size_t i = 2; i < threads.size(); ++i) threads[i].join();
  EXPECT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
}

TEST_F(ConcurrencyTest, ClosingASessionInUseIsSafe) {
  std::atomic<bool> done{false};
  std::thread reader([&] {
    std::mt19937_64 random(5);
    const std::vector<float> queries = RandomFloats(f_.q_heads * f_.head_dim, random);
    const AttendItem item = {.session_id = "s", .layer = 0, .queries = queries};
    while (!done) {
      const auto answers = store_->Attend({&item, 1}, absl::InfiniteFuture());
      ASSERT_TRUE(answers.ok());
      const absl::Status& status = answers->front().status;
      ASSERT_TRUE(status.ok() || absl::IsNotFound(status)) << status.message();
    }
  });
  std::mt19937_64 random(6);
  const Tokens tokens = Ones(600, random);
  for (int round = 0; round < 20; ++round) {
    Open("s");
    for (uint32_t layer = 0; layer < 2; ++layer) {
      ASSERT_TRUE(store_->Append(tokens.Batch("s", layer, 0), absl::InfiniteFuture()).ok());
    }
    ASSERT_TRUE(store_->CloseSession("s").ok());
  }
  done = true;
  reader.join();
  EXPECT_EQ(store_->Status().sessions, 0u);
}

TEST_F(ConcurrencyTest, WritersOfOneLayerTakeTurns) {
  Open("s");
  std::mt19937_64 random(9);
  std::vector<Tokens> batches;
  for (int i = 0; i < 40; ++i) batches.push_back(Ones(25, random));
  // Both writers send everything: whoever comes second finds his batch held.
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&] {
      for (size_t i = 0; i < batches.size(); ++i) {
        const auto ack = store_->Append(batches[i].Batch("s", 0, static_cast<int64_t>(i) * 25),
                                        absl::InfiniteFuture());
        ASSERT_TRUE(ack.ok()) << ack.status().message();
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(store_->DescribeSession("s")->layers[0].watermark, 1000);
}

}  // namespace
}  // namespace attic
