// What is recorded of durable sessions beside their tokens: tenants, leases, pins, prefixes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "server/session/session_attributes.h"
#include "server/session/session_store.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

constexpr int64_t kBlock = kPrefixBlockTokens;

class DurableLifetimeTest : public ::testing::Test {
 protected:
  DurableLifetimeTest() {
    options_.threads = 2;
    options_.build_threads = 1;
    options_.index.segment_tokens = 512;
    options_.disk.store.directory = folder_.path();
    options_.sweep_interval = absl::InfiniteDuration();
    options_.clock = [this] { return now_; };
    Restart();
  }

  void Restart() {
    store_.reset();
    auto store = SessionStore::Open(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    ASSERT_TRUE(store_->WaitForBuilds(absl::Now() + absl::Seconds(60)).ok());
  }

  OpenSessionRequest Request(const std::string& id) {
    std::vector<uint32_t> tokens(8 * kBlock);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(i);
    return {.session_id = id,
            .fingerprint = SmallFingerprint(),
            .stored_layers = {0},
            .durability = Durability::kDurable,
            .tenant = "tenant",
            .ttl_seconds = 10,
            .prefix_hashes = PrefixHashes(tokens),
            .reuse_prefix = true};
  }
  SessionDescription Open(const OpenSessionRequest& request) {
    const auto opened = store_->OpenSession(request);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.value_or(SessionDescription());
  }
  void Append(const std::string& id, int64_t begin, int64_t end) {
    const Tokens rows =
        Tokens::Random(SmallFingerprint(), static_cast<size_t>(end - begin), random_);
    const auto ack = store_->Append(rows.Batch(id, 0, begin), absl::Now() + absl::Seconds(30));
    ASSERT_TRUE(ack.ok()) << ack.status();
  }

  std::mt19937_64 random_{3};
  absl::Time now_ = absl::UnixEpoch();
  const TemporaryFolder folder_;
  SessionStoreOptions options_;
  std::unique_ptr<SessionStore> store_;
};

TEST_F(DurableLifetimeTest, RestartsKeepWhatIsKnownOfASession) {
  Open(Request("a"));
  Append("a", 0, 8 * kBlock);
  ASSERT_TRUE(store_->PinSession("a", true).ok());
  EXPECT_EQ(Open(Request("b")).reused_tokens, 8 * kBlock);
  now_ += absl::Seconds(5);
  Restart();
  const auto a = store_->DescribeSession("a");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->watermark, 8 * kBlock);
  EXPECT_TRUE(a->pinned);
  EXPECT_EQ(a->tenant, "tenant");
  EXPECT_EQ(a->ttl_seconds, 10u);
  EXPECT_EQ(a->lease_seconds_left, 10) << "the lease runs anew";
  EXPECT_EQ(store_->DescribeSession("b")->reused_tokens, 8 * kBlock);
  EXPECT_FALSE(store_->DescribeSession("b")->pinned);
  ASSERT_TRUE(store_->CloseSession("b").ok());
  EXPECT_EQ(Open(Request("c")).reused_tokens, 8 * kBlock);
}

TEST_F(DurableLifetimeTest, BlocksThatWereToComeAreForgottenAtARestart) {
  Open(Request("a"));
  Append("a", 0, 3 * kBlock + 100);
  Restart();
  Append("a", 3 * kBlock + 100, 8 * kBlock);  // perhaps others than those announced
  EXPECT_EQ(Open(Request("b")).reused_tokens, 3 * kBlock);
  Restart();
  EXPECT_EQ(Open(Request("c")).reused_tokens, 3 * kBlock);
  const std::vector<PrefixHash> hashes = Request("").prefix_hashes;
  ASSERT_TRUE(store_->ExtendPrefix("a", 3, std::span(hashes).subspan(3)).ok());
  Restart();
  EXPECT_EQ(Open(Request("d")).reused_tokens, 8 * kBlock);
}

TEST_F(DurableLifetimeTest, TruncatedBlocksAreForgottenForGood) {
  Open(Request("a"));
  Append("a", 0, 8 * kBlock);
  ASSERT_TRUE(store_->TruncateSession("a", 2 * kBlock + 5).ok());
  Append("a", 2 * kBlock + 5, 8 * kBlock);
  Restart();
  EXPECT_EQ(Open(Request("b")).reused_tokens, 2 * kBlock);
}

TEST_F(DurableLifetimeTest, EndedLeasesGiveWayOnlyWhenAPlaceIsNeeded) {
  options_.limits.sessions_max = 2;
  Restart();
  Open(Request("old"));
  OpenSessionRequest pinned = Request("pinned");
  pinned.pinned = true;
  Open(pinned);
  EXPECT_EQ(store_->OpenSession(Request("new")).status().code(),
            absl::StatusCode::kResourceExhausted);
  now_ += absl::Seconds(11);
  EXPECT_EQ(store_->CloseEndedSessions(), 0u);
  EXPECT_TRUE(store_->DescribeSession("old").ok());
  EXPECT_TRUE(Open(Request("new")).created);
  EXPECT_FALSE(store_->DescribeSession("old").ok());
  EXPECT_TRUE(store_->DescribeSession("pinned").ok());
  Restart();
  EXPECT_FALSE(store_->DescribeSession("old").ok());
  EXPECT_TRUE(store_->DescribeSession("new").ok());
}

TEST(SessionAttributesTest, AreReadBackOrRefused) {
  RecordedAttributes recorded;
  recorded.attributes.durability = Durability::kDurable;
  recorded.attributes.tenant = "tenant";
  recorded.attributes.ttl_seconds = 7;
  recorded.attributes.reused_tokens = 512;
  recorded.pinned = true;
  recorded.prefix_hashes.assign(3, {1, 2, 3});
  const std::string bytes = EncodeSessionAttributes(recorded);
  const auto read = DecodeSessionAttributes(bytes);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, recorded);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeSessionAttributes(bytes.substr(0, size)).status().code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
  EXPECT_FALSE(DecodeSessionAttributes(bytes + "x").ok());
}

}  // namespace
}  // namespace attic
