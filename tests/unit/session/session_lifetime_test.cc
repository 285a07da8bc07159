// What a store does by itself: reuse prefixes, keep quotas, close what nobody uses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "tests/support/sanitizer.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kBlock = kPrefixBlockTokens;

class SessionLifetimeTest : public ::testing::Test {
 protected:
  SessionLifetimeTest() {
    options_.threads = 2;
    options_.build_threads = 1;
    options_.index.segment_tokens = 512;
    options_.clock = [this] {
      if (const auto hook = std::exchange(at_next_clock_, nullptr)) hook();
      return absl::UnixEpoch() + absl::Seconds(now_.load());
    };
    store_ = SessionStore::Create(options_);
  }

  void Recreate() { store_ = SessionStore::Create(options_); }

  // Token ids of a text: the same text, the same tokens.
  static std::vector<uint32_t> Text(uint32_t text, size_t count) {
    std::mt19937 random(text);
    std::vector<uint32_t> tokens(count);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(random());
    return tokens;
  }

  OpenSessionRequest Request(const std::string& id, uint32_t text = 1, size_t tokens = 2048) {
    return {.session_id = id,
            .fingerprint = SmallFingerprint(),
            .stored_layers = {0, 3},
            .prefix_hashes = PrefixHashes(Text(text, tokens)),
            .reuse_prefix = true};
  }

  SessionDescription Open(const OpenSessionRequest& request) {
    const auto opened = store_->OpenSession(request);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.value_or(SessionDescription());
  }

  // Rows whose values are all `version`.
  absl::Status Append(const std::string& id, uint32_t layer, int64_t begin, int64_t end,
                      float version = 1) {
    const Fingerprint f = SmallFingerprint();
    std::mt19937_64 random(5);
    Tokens rows = Tokens::Random(f, static_cast<size_t>(end - begin), random);
    const std::vector<float> values(rows.count * f.kv_heads * f.value_dim, version);
    FromFloat32(values, f.element_type, rows.values.data());
    return store_->Append(rows.Batch(id, layer, begin), absl::Now() + absl::Seconds(30)).status();
  }

  void Fill(const std::string& id, int64_t begin, int64_t end, float version = 1) {
    for (const uint32_t layer : {0u, 3u}) {
      const absl::Status appended = Append(id, layer, begin, end, version);
      ASSERT_TRUE(appended.ok()) << appended;
    }
  }

  bool IsOpen(const std::string& id) { return store_->DescribeSession(id).ok(); }

  std::atomic<int> now_{1000};
  std::function<void()> at_next_clock_;  // only where the store does not sweep by itself
  SessionStoreOptions options_;
  std::unique_ptr<SessionStore> store_;
};

TEST_F(SessionLifetimeTest, StartsWithTheLongestPrefixHeldInEveryLayer) {
  Open(Request("a"));
  EXPECT_EQ(Open(Request("early")).reused_tokens, 0) << "nothing is held yet";
  Fill("a", 0, 3 * kBlock + 10);
  ASSERT_TRUE(Append("a", 0, 3 * kBlock + 10, 5 * kBlock).ok());  // layer 3 lags
  const SessionDescription b = Open(Request("b"));
  EXPECT_EQ(b.reused_tokens, 3 * kBlock);
  EXPECT_EQ(b.watermark, 3 * kBlock);
  EXPECT_EQ(store_->DescribeSession("b")->reused_tokens, 3 * kBlock);

  // Another text with two blocks in common finds two.
  OpenSessionRequest other = Request("c");
  std::vector<uint32_t> tokens = Text(1, 2048);
  tokens[2 * kBlock + 7] ^= 1;
  other.prefix_hashes = PrefixHashes(tokens);
  EXPECT_EQ(Open(other).reused_tokens, 2 * kBlock);

  OpenSessionRequest unwilling = Request("d");
  unwilling.reuse_prefix = false;
  EXPECT_EQ(Open(unwilling).reused_tokens, 0);
  OpenSessionRequest stranger = Request("e");
  stranger.tenant = "stranger";
  EXPECT_EQ(Open(stranger).reused_tokens, 0);

  // b serves others when a is gone, and grows on its own.
  ASSERT_TRUE(store_->CloseSession("a").ok());
  Fill("b", 3 * kBlock, 4 * kBlock);
  EXPECT_EQ(Open(Request("f")).reused_tokens, 4 * kBlock);
}

TEST_F(SessionLifetimeTest, ASessionThatHoldsMoreOfAShorterMatchWins) {
  Open(Request("long"));
  Fill("long", 0, kBlock);
  Open(Request("short", 1, 3 * kBlock));
  Fill("short", kBlock, 3 * kBlock);
  EXPECT_EQ(Open(Request("new")).reused_tokens, 3 * kBlock);
}

TEST_F(SessionLifetimeTest, TruncationsAndForksTakeTheirBlocksWithThem) {
  Open(Request("a"));
  Fill("a", 0, 2048);
  ASSERT_TRUE(store_->ForkSession("a", {.position = 5 * kBlock + 3, .new_session_id = "f"}).ok());
  ASSERT_TRUE(store_->TruncateSession("a", 2 * kBlock + 1).ok());
  Fill("a", 2 * kBlock + 1, 2048, 2);  // other tokens
  EXPECT_EQ(Open(Request("b")).reused_tokens, 5 * kBlock) << "the fork's";
  ASSERT_TRUE(store_->CloseSession("f").ok());
  ASSERT_TRUE(store_->CloseSession("b").ok());
  EXPECT_EQ(Open(Request("c")).reused_tokens, 2 * kBlock);

  // A truncation that is refused forgets nothing.
  EXPECT_FALSE(store_->TruncateSession("a", 1 << 20).ok());
  EXPECT_EQ(Open(Request("d")).reused_tokens, 2 * kBlock);
}

TEST_F(SessionLifetimeTest, BlocksMayBeRegisteredLater) {
  OpenSessionRequest request = Request("a");
  const std::vector<PrefixHash> hashes = request.prefix_hashes;
  request.prefix_hashes.clear();
  Open(request);
  Fill("a", 0, 2048);
  EXPECT_EQ(Open(Request("b", 1, 300)).reused_tokens, 0);
  ASSERT_TRUE(store_->ExtendPrefix("a", 0, std::span(hashes).first(3)).ok());
  ASSERT_TRUE(store_->ExtendPrefix("a", 2, std::span(hashes).subspan(2)).ok());
  EXPECT_EQ(Open(Request("c")).reused_tokens, 2048);
  EXPECT_EQ(store_->ExtendPrefix("a", 9, hashes).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(store_->ExtendPrefix("a", 1, hashes).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->ExtendPrefix("nobody", 0, hashes).status().code(), absl::StatusCode::kNotFound);
  const std::vector<PrefixHash> many(options_.limits.prefix_hashes_max + 1);
  const absl::Status refused = store_->ExtendPrefix("a", 0, many).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("prefix_hashes_max"));
  EXPECT_EQ(store_->ExtendPrefix("a", 65536, hashes).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// The clock is read between finding a source and forking it.
TEST_F(SessionLifetimeTest, TheNextBestIsTakenWhenASourceChangesOrGoes) {
  options_.sweep_interval = absl::InfiniteDuration();
  Recreate();
  const auto fill = [&](const std::string& id, int64_t tokens) {
    OpenSessionRequest request = Request(id);
    request.reuse_prefix = false;
    Open(request);
    Fill(id, 0, tokens);
  };
  fill("best", 2048);
  fill("second", 3 * kBlock);
  fill("third", kBlock);
  at_next_clock_ = [&] {
    ASSERT_TRUE(store_->TruncateSession("best", 0).ok());
    Fill("best", 0, 2048, 2);  // as many tokens, but others
  };
  EXPECT_EQ(Open(Request("a")).reused_tokens, 3 * kBlock);
  ASSERT_TRUE(store_->CloseSession("a").ok());
  at_next_clock_ = [&] { ASSERT_TRUE(store_->CloseSession("second").ok()); };
  EXPECT_EQ(Open(Request("b")).reused_tokens, kBlock);
  ASSERT_TRUE(store_->CloseSession("b").ok());
  at_next_clock_ = [&] { ASSERT_TRUE(store_->TruncateSession("third", kBlock - 1).ok()); };
  EXPECT_EQ(Open(Request("c")).reused_tokens, 0);
}

// A fork takes its source's blocks only if they were the source's all the time.
TEST_F(SessionLifetimeTest, ForksOfATruncatedSourceAreFoundByNothing) {
  Open(Request("a"));
  Fill("a", 0, kBlock);
  ASSERT_TRUE(store_->ForkSession("a", {.position = kBlock, .new_session_id = "f"}).ok());
  ASSERT_TRUE(store_->CloseSession("a").ok());
  ASSERT_TRUE(store_->TruncateSession("f", kBlock - 1).ok());
  Fill("f", kBlock - 1, kBlock, 2);
  EXPECT_EQ(Open(Request("b")).reused_tokens, 0);
}

// Sources change their tokens all the time; who opens with a chain gets that chain's tokens.
TEST_F(SessionLifetimeTest, PrefixesAreRightWhileTheirSourcesChange) {
  constexpr int64_t kTokens = 3 * kBlock;
  constexpr int kReused = kThreadSanitizer ? 200 : 1000;
  size_t wrong = 0;
  std::atomic<bool> done{false};
  std::atomic<int> opened{0};
  int reused = 0;
  for (const char* id : {"s0", "s1"}) {
    OpenSessionRequest request = Request(id, 1, 0);
    Open(request);
  }
  std::vector<std::thread> threads;
  for (int source = 0; source < 2; ++source) {
    threads.emplace_back([&, source] {
      const std::string id = absl::StrCat("s", source);
      std::mt19937_64 random(source);
      while (!done) {
        ASSERT_TRUE(store_->TruncateSession(id, 0).ok());
        const uint32_t version = 1 + random() % 2;
        Fill(id, 0, kTokens, static_cast<float>(version));
        const auto hashes = PrefixHashes(Text(version, kTokens));
        ASSERT_TRUE(store_->ExtendPrefix(id, 0, hashes).ok());
        // Sometimes it changes at once, sometimes readers find it.
        const int until = opened + static_cast<int>(random() % 3);
        while (opened < until && !done) std::this_thread::yield();
      }
    });
  }
  std::mt19937_64 random(9);
  const Fingerprint f = SmallFingerprint();
  const std::vector<float> queries = RandomFloats(f.q_heads * f.head_dim, random);
  const absl::Time give_up = absl::Now() + absl::Seconds(60);
  for (int i = 0; reused < kReused && absl::Now() < give_up; ++i) {
    const std::string id = absl::StrCat("reader", i);
    const uint32_t version = 1 + random() % 2;
    OpenSessionRequest request = Request(id, version, kTokens);
    request.prefix_hashes.resize(1 + random() % 3);
    const int64_t held = Open(request).watermark;
    ++opened;
    if (held > 0) {
      ++reused;
      const AttendItem item{.session_id = id, .layer = 3, .queries = queries};
      const auto answers = store_->Attend({&item, 1}, absl::InfiniteFuture());
      ASSERT_TRUE(answers.ok());
      for (const float x : answers->front().output) wrong += std::abs(x - version) > 1e-4;
    }
    ASSERT_TRUE(store_->CloseSession(id).ok());
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(reused, kReused);
  EXPECT_EQ(wrong, 0u);
}

TEST_F(SessionLifetimeTest, LeasesEndUnlessRenewedOrPinned) {
  for (const char* id : {"unused", "used", "pinned", "kept"}) {
    OpenSessionRequest request = Request(id);
    request.reuse_prefix = false;
    request.ttl_seconds = std::string(id) == "kept" ? 0 : 10;
    request.pinned = std::string(id) == "pinned";
    Open(request);
  }
  EXPECT_EQ(store_->DescribeSession("used")->lease_seconds_left, 10);
  now_ += 6;
  ASSERT_TRUE(Append("used", 0, 0, 5).ok());
  now_ += 6;
  EXPECT_EQ(store_->DescribeSession("used")->lease_seconds_left, 4);
  EXPECT_TRUE(IsOpen("unused")) << "looking on renews nothing, and closes nothing";
  store_->CloseEndedSessions();
  EXPECT_FALSE(IsOpen("unused"));
  EXPECT_TRUE(IsOpen("used"));
  EXPECT_EQ(store_->Status().evicted_sessions, 1u);

  ASSERT_TRUE(store_->RenewLease("used").ok());
  now_ += 9;
  store_->CloseEndedSessions();
  EXPECT_TRUE(IsOpen("used"));
  const std::vector<float> queries(4 * 16, 1.0f);
  const AttendItem item{.session_id = "used", .layer = 0, .queries = queries};
  ASSERT_TRUE(store_->Attend({&item, 1}, absl::InfiniteFuture())->front().status.ok());
  EXPECT_EQ(store_->DescribeSession("used")->lease_seconds_left, 10);

  const auto unpinned = store_->PinSession("pinned", false);
  ASSERT_TRUE(unpinned.ok());
  EXPECT_FALSE(unpinned->pinned);
  now_ += 100;
  store_->CloseEndedSessions();
  EXPECT_FALSE(IsOpen("used"));
  EXPECT_FALSE(IsOpen("pinned"));
  EXPECT_TRUE(IsOpen("kept"));
  EXPECT_EQ(store_->Append({.session_id = "used"}, absl::Now()).status().code(),
            absl::StatusCode::kNotFound);
  // The id is free again.
  EXPECT_EQ(Open(Request("used")).watermark, 0);
}

TEST_F(SessionLifetimeTest, TheStoreSweepsByItself) {
  OpenSessionRequest request = Request("a");
  request.ttl_seconds = 1;
  Open(request);
  now_ += 2;
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (IsOpen("a") && absl::Now() < give_up) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_FALSE(IsOpen("a"));
}

TEST_F(SessionLifetimeTest, MemoryIsMadeForTheLivingFromWhatHasEndedOnly) {
  options_.limits.memory_bytes_max = 1'000'000;
  options_.index.segment_tokens = 32768;  // nothing is built, which takes memory of its own
  Recreate();
  // Returns how many tokens the session holds when there is no room for more.
  const auto fill_up = [&](const std::string& id) {
    int64_t held = store_->DescribeSession(id)->layers[0].watermark;
    absl::Status status;
    while (status.ok()) {
      status = Append(id, 0, held, held + 256);
      if (status.ok()) held += 256;
    }
    EXPECT_THAT(std::string(status.message()), HasSubstr("memory_bytes_max"));
    return held;
  };
  OpenSessionRequest leased = Request("leased");
  leased.ttl_seconds = 10;
  Open(leased);
  Open(Request("living"));
  const int64_t room = fill_up("leased");
  const int64_t left = fill_up("living");
  EXPECT_LT(left, room / 2);
  EXPECT_TRUE(IsOpen("leased")) << "its lease has not ended";
  now_ += 11;
  EXPECT_GT(fill_up("living"), left + room / 2);
  EXPECT_FALSE(IsOpen("leased"));
  EXPECT_TRUE(IsOpen("living"));
  EXPECT_EQ(store_->Status().evicted_sessions, 1u);
}

TEST_F(SessionLifetimeTest, TenantsHaveQuotas) {
  options_.limits.tenant_sessions_max = 2;
  options_.limits.tenant_bytes_max = 400'000;
  Recreate();
  const auto request = [&](const std::string& id, const std::string& tenant) {
    OpenSessionRequest r = Request(id);
    r.tenant = tenant;
    r.reuse_prefix = false;
    return r;
  };
  Open(request("a1", "a"));
  Open(request("a2", "a"));
  absl::Status refused = store_->OpenSession(request("a3", "a")).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("tenant_sessions_max"));
  refused = store_->ForkSession("a1", {.new_session_id = "a3"}).status();
  EXPECT_THAT(std::string(refused.message()), HasSubstr("tenant_sessions_max"));
  Open(request("b1", "b"));
  ASSERT_TRUE(store_->CloseSession("a2").ok());
  Open(request("a3", "a"));

  // Bytes count over a tenant's sessions; another tenant's are its own.
  int64_t held = 0;
  for (refused = absl::OkStatus(); refused.ok() && held < 100'000; held += 256) {
    refused = Append(held % 512 == 0 ? "a1" : "a3", 0, held / 512 * 256, held / 512 * 256 + 256);
  }
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("tenant_bytes_max"));
  EXPECT_TRUE(Append("b1", 0, 0, 256).ok());
  ASSERT_TRUE(store_->CloseSession("a1").ok());
  // A builder at work on the closed session holds its memory until it looks up.
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!(refused = Append("a3", 3, 0, 256)).ok() && absl::Now() < deadline) {
    ASSERT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_TRUE(refused.ok()) << refused;
}

TEST_F(SessionLifetimeTest, ASessionBelongsToItsTenantAndIsAsDurableAsAskedFor) {
  Open(Request("a"));
  OpenSessionRequest other = Request("a");
  other.tenant = "other";
  absl::Status refused = store_->OpenSession(other).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("tenant"));
  OpenSessionRequest durable = Request("a");
  durable.durability = Durability::kDurable;
  EXPECT_EQ(store_->OpenSession(durable).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->FlushSession("a", absl::InfiniteFuture()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  durable.session_id = "text";
  durable.tenant.assign(options_.limits.text_bytes_max + 1, 't');
  EXPECT_EQ(store_->OpenSession(durable).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace attic
