// Digests and rows of shards against a plain model: through builds, truncations, forks, a restart,
// with vectors on disk only, and while others change the session.
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

// Keys and values of a shard as they were appended.
struct Model {
  std::vector<std::byte> keys, values;

  RowsDigest Digest(const Fingerprint& f) const {
    const size_t key_bytes = f.kv_heads * f.head_dim * ElementBytes(f.element_type);
    const size_t value_bytes = f.kv_heads * f.value_dim * ElementBytes(f.element_type);
    const size_t tokens = keys.size() / key_bytes;
    RowsDigest digest{.watermark = static_cast<int64_t>(tokens)};
    for (size_t begin = 0; begin < tokens; begin += 8192) {
      const size_t count = std::min<size_t>(8192, tokens - begin);
      std::vector<std::byte> bytes(
          keys.begin() + static_cast<std::ptrdiff_t>(begin * key_bytes),
          keys.begin() + static_cast<std::ptrdiff_t>((begin + count) * key_bytes));
      bytes.insert(bytes.end(), values.begin() + static_cast<std::ptrdiff_t>(begin * value_bytes),
                   values.begin() + static_cast<std::ptrdiff_t>((begin + count) * value_bytes));
      const uint64_t hash = XXH3_64bits(bytes.data(), bytes.size());
      if (count == 8192) {
        digest.blocks.push_back(hash);
      } else {
        digest.rest = hash;
      }
    }
    return digest;
  }
};

Fingerprint OneHead(ElementType type) {
  Fingerprint f = SmallFingerprint(type);
  f.q_heads = 2;
  f.kv_heads = 1;
  return f;
}

class ShardRowsTest : public ::testing::Test {
 protected:
  static constexpr char kId[] = "book#3.1";

  ShardRowsTest() {
    options_.threads = 2;
    options_.build_threads = 1;
    options_.index.segment_tokens = 1024;
    options_.node_of_cluster = true;
  }

  void UseDisk() { options_.disk.store.directory = folder_.path(); }
  void Start() {
    store_.reset();
    auto opened = SessionStore::Open(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }
  void Wait() {
    const absl::Status built = store_->WaitForBuilds(absl::Now() + absl::Seconds(100));
    ASSERT_TRUE(built.ok()) << built;
  }

  OpenSessionRequest Request(const std::string& id, Durability durability) const {
    return {.session_id = id,
            .fingerprint = fingerprint_,
            .stored_layers = {3},
            .durability = durability,
            .placement =
                Placement{.slot = 17, .key = "book", .replication = {.replicas = 2}, .kv_head = 1}};
  }
  void Open(Durability durability = Durability::kMemory) {
    const auto opened = store_->OpenSession(Request(kId, durability));
    ASSERT_TRUE(opened.ok()) << opened.status();
  }
  void Append(size_t count) {
    const Tokens tokens = Tokens::Random(fingerprint_, count, random_);
    const auto begin = model_.Digest(fingerprint_).watermark;
    const auto ack = store_->Append(tokens.Batch(kId, 3, begin), absl::Now() + absl::Seconds(100));
    ASSERT_TRUE(ack.ok()) << ack.status();
    model_.keys.insert(model_.keys.end(), tokens.keys.begin(), tokens.keys.end());
    model_.values.insert(model_.values.end(), tokens.values.begin(), tokens.values.end());
  }
  void Truncate(int64_t position) {
    ASSERT_TRUE(store_->TruncateSession(kId, position).ok());
    const size_t element = ElementBytes(fingerprint_.element_type);
    model_.keys.resize(static_cast<size_t>(position) * fingerprint_.head_dim * element);
    model_.values.resize(static_cast<size_t>(position) * fingerprint_.value_dim * element);
  }

  // Reads [begin, end) and appends what comes to keys and values.
  absl::Status Read(const std::string& id, int64_t begin, int64_t end, Model& read) {
    auto source = store_->ReadRows(id, begin, end);
    if (!source.ok()) return source.status();
    ShardRows rows;
    int64_t next = begin;
    for (;;) {
      const auto more = (*source)->Next(rows);
      if (!more.ok()) return more.status();
      if (!*more) break;
      EXPECT_EQ(rows.layer, 3u);
      EXPECT_EQ(rows.begin_position, next);
      EXPECT_LE(rows.keys.size() + rows.values.size(), 1u << 20);
      next += static_cast<int64_t>(rows.count);
      read.keys.insert(read.keys.end(), rows.keys.begin(), rows.keys.end());
      read.values.insert(read.values.end(), rows.values.begin(), rows.values.end());
    }
    EXPECT_EQ(next, end);
    return absl::OkStatus();
  }

  void ExpectAsModelled(const std::string& id = kId) {
    const auto digest = store_->DigestRows(id, absl::InfiniteFuture());
    ASSERT_TRUE(digest.ok()) << digest.status();
    EXPECT_TRUE(*digest == model_.Digest(fingerprint_)) << id << " at " << digest->watermark;
    Model all;
    const absl::Status read = Read(id, 0, digest->watermark, all);
    ASSERT_TRUE(read.ok()) << read;
    EXPECT_TRUE(all.keys == model_.keys && all.values == model_.values);
  }

  const Fingerprint fingerprint_ = OneHead(ElementType::kBFloat16);
  std::mt19937_64 random_{7};
  SessionStoreOptions options_;
  const TemporaryFolder folder_;
  std::unique_ptr<SessionStore> store_;
  Model model_;
};

TEST_F(ShardRowsTest, ThroughBuildsTruncationsAndForks) {
  Start();
  Open();
  ExpectAsModelled();
  for (const size_t count : {1u, 700u, 7491u, 1u, 5000u, 4000u}) {
    Append(count);
    ExpectAsModelled();
  }
  Wait();
  ExpectAsModelled();
  for (const int64_t position : {16500, 16384, 9000, 8191, 5}) {
    if (position <= model_.Digest(fingerprint_).watermark) Truncate(position);
    ExpectAsModelled();
    Append(static_cast<size_t>(random_() % 3000));
    ExpectAsModelled();
  }
  const int64_t held = model_.Digest(fingerprint_).watermark;
  const auto fork = store_->ForkSession(kId, {.position = held, .new_session_id = "copy#3.1"});
  ASSERT_TRUE(fork.ok()) << fork.status();
  ExpectAsModelled("copy#3.1");
}

TEST_F(ShardRowsTest, AnyRange) {
  Start();
  Open();
  Append(12'000);
  Append(9'000);
  Wait();
  for (int i = 0; i < 30; ++i) {
    const auto begin = static_cast<int64_t>(random_() % 21'001);
    const auto end = begin + static_cast<int64_t>(random_() % (21'001 - begin));
    Model read;
    ASSERT_TRUE(Read(kId, begin, end, read).ok());
    const size_t key_bytes = fingerprint_.head_dim * 2;
    EXPECT_TRUE(std::equal(read.keys.begin(), read.keys.end(),
                           model_.keys.begin() + begin * static_cast<std::ptrdiff_t>(key_bytes)))
        << begin << " " << end;
  }
  Model read;
  EXPECT_TRUE(absl::IsOutOfRange(Read(kId, 0, 21'001, read)));
  EXPECT_TRUE(absl::IsInvalidArgument(Read(kId, -1, 5, read)));
  EXPECT_TRUE(absl::IsInvalidArgument(Read(kId, 6, 5, read)));
  EXPECT_TRUE(absl::IsNotFound(Read("none", 0, 0, read)));
  EXPECT_TRUE(absl::IsNotFound(store_->DigestRows("none", absl::InfiniteFuture()).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(store_->DigestRows(kId, absl::Now()).status()));
}

TEST_F(ShardRowsTest, FromDiskAndAfterARestart) {
  UseDisk();
  Start();
  Open(Durability::kDurable);
  for (int i = 0; i < 3; ++i) Append(7'000);
  Wait();
  ExpectAsModelled();
  ASSERT_TRUE(store_->FlushSession(kId, absl::InfiniteFuture()).ok());
  // So that vectors leave memory.
  options_.limits.memory_bytes_max = 64u << 20;
  options_.disk.tier.high_watermark = 0.01;
  options_.disk.tier.low_watermark = 0.005;
  Start();
  Wait();
  const absl::Time patience = absl::Now() + absl::Seconds(100);
  while (store_->Status().memory.vectors_bytes > 0 && absl::Now() < patience) {
    std::this_thread::yield();
  }
  EXPECT_GT(store_->Status().memory.evicted_bytes, 0u);
  EXPECT_EQ(store_->Status().memory.vectors_bytes, 0u);
  ExpectAsModelled();
  Truncate(9'000);
  ExpectAsModelled();
}

// A reader keeps what it began with.
TEST_F(ShardRowsTest, RowsOfOneMoment) {
  Start();
  Open();
  for (int i = 0; i < 3; ++i) Append(16'384);
  Wait();
  const Model before = model_;
  const int64_t held = before.Digest(fingerprint_).watermark;
  auto source = store_->ReadRows(kId, 0, held);
  ASSERT_TRUE(source.ok());
  ShardRows rows;
  ASSERT_TRUE(*(*source)->Next(rows));
  Model read{.keys = rows.keys, .values = rows.values};
  Truncate(100);
  Append(16'384);
  ASSERT_TRUE(store_->CloseSession(kId).ok());
  for (;;) {
    const auto more = (*source)->Next(rows);
    ASSERT_TRUE(more.ok());
    if (!*more) break;
    read.keys.insert(read.keys.end(), rows.keys.begin(), rows.keys.end());
    read.values.insert(read.values.end(), rows.values.begin(), rows.values.end());
  }
  EXPECT_TRUE(read.keys == before.keys && read.values == before.values);
}

// Every digest taken meanwhile is that of a prefix of one of two contents.
class DigestsOfChangesTest : public ShardRowsTest, public ::testing::WithParamInterface<size_t> {};

INSTANTIATE_TEST_SUITE_P(TokensOfAnAppend, DigestsOfChangesTest,
                         ::testing::Values(500, 5000, kDigestBlockTokens, 9000));

TEST_P(DigestsOfChangesTest, AreThoseOfWhatWasHeld) {
  Start();
  Open();
  const size_t batch = GetParam();
  const Tokens common = Tokens::Random(fingerprint_, batch, random_);
  const Tokens branches[] = {Tokens::Random(fingerprint_, batch, random_),
                             Tokens::Random(fingerprint_, batch, random_)};
  std::vector<RowsDigest> expected(2);
  for (const Tokens& branch : branches) {
    Model model{.keys = common.keys, .values = common.values};
    expected[1] = model.Digest(fingerprint_);
    model.keys.insert(model.keys.end(), branch.keys.begin(), branch.keys.end());
    model.values.insert(model.values.end(), branch.values.begin(), branch.values.end());
    expected.push_back(model.Digest(fingerprint_));
  }
  std::atomic<bool> done{false};
  std::atomic<size_t> taken{0};
  std::thread reader([&] {
    while (!done) {
      const auto digest = store_->DigestRows(kId, absl::InfiniteFuture());
      ASSERT_TRUE(digest.ok()) << digest.status();
      EXPECT_NE(std::find(expected.begin(), expected.end(), *digest), expected.end())
          << digest->watermark;
      ++taken;
    }
  });
  const absl::Time patience = absl::Now() + absl::Seconds(100);
  for (size_t i = 0; i < 200000 / batch || (taken < 200 && absl::Now() < patience); ++i) {
    ASSERT_TRUE(store_->Append(common.Batch(kId, 3, 0), absl::InfiniteFuture()).ok());
    ASSERT_TRUE(store_
                    ->Append(branches[i % 2].Batch(kId, 3, static_cast<int64_t>(batch)),
                             absl::InfiniteFuture())
                    .ok());
    ASSERT_TRUE(store_->TruncateSession(kId, i % 3 == 0 ? 0 : static_cast<int64_t>(batch)).ok());
  }
  done = true;
  reader.join();
  EXPECT_GE(taken, 20u);
}

TEST_F(ShardRowsTest, ReadersAreLimited) {
  Start();
  Open();
  Append(10);
  std::vector<std::unique_ptr<RowsSource>> sources;
  for (size_t i = 0; i < SessionStore::kRowReadersMax; ++i) {
    auto source = store_->ReadRows(kId, 0, 10);
    ASSERT_TRUE(source.ok());
    sources.push_back(*std::move(source));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(store_->ReadRows(kId, 0, 10).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->DigestRows(kId, absl::InfiniteFuture()).status()));
  sources.pop_back();
  EXPECT_TRUE(store_->DigestRows(kId, absl::InfiniteFuture()).ok());
}

TEST(RowsOfWholeSessions, OneLayerOfManyHeadsOrNothing) {
  const auto store = SessionStore::Create({.threads = 1, .build_threads = 1});
  const Fingerprint f = SmallFingerprint();
  std::mt19937_64 random(3);
  const Tokens tokens = Tokens::Random(f, 100, random);
  ASSERT_TRUE(
      store->OpenSession({.session_id = "one", .fingerprint = f, .stored_layers = {2}}).ok());
  ASSERT_TRUE(store->Append(tokens.Batch("one", 2, 0), absl::InfiniteFuture()).ok());
  const auto digest = store->DigestRows("one", absl::InfiniteFuture());
  ASSERT_TRUE(digest.ok()) << digest.status();
  const Model model{.keys = tokens.keys, .values = tokens.values};
  EXPECT_TRUE(*digest == model.Digest(f));

  ASSERT_TRUE(
      store->OpenSession({.session_id = "two", .fingerprint = f, .stored_layers = {1, 2}}).ok());
  const auto empty = store->DigestRows("two", absl::InfiniteFuture());
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_TRUE(*empty == RowsDigest{});
  ASSERT_TRUE(store->Append(tokens.Batch("two", 2, 0), absl::InfiniteFuture()).ok());
  EXPECT_TRUE(
      absl::IsFailedPrecondition(store->DigestRows("two", absl::InfiniteFuture()).status()));
}

}  // namespace
}  // namespace attic
