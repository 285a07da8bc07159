// Sessions as snapshots: what is imported answers as what was exported, and nothing that is damaged
// is ever seen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "server/storage/snapshot_reader.h"
#include "server/storage/snapshot_writer.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/session/session_driver.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytesMax = 1u << 20;
constexpr int64_t kTokens = 2000;  // seven segments, and a tail
constexpr int kQuestions = kThreadSanitizer ? 12 : 40;
const std::vector<uint32_t> kLayers = {0, 3};

std::unique_ptr<SessionStore> Open(const std::string& directory = "") {
  SessionStoreOptions options = SmallOptions();
  options.index.centroid_graph = false;
  // Whether a scan is better depends on where the vectors happen to be.
  options.index.exact_when_better = false;
  options.disk.store.directory = directory;
  auto store = SessionStore::Open(options);
  EXPECT_TRUE(store.ok()) << store.status();
  return *std::move(store);
}

void Append(SessionStore& store, const std::string& id, int64_t begin, int64_t count,
            uint64_t seed) {
  const Fingerprint f = SmallFingerprint();
  std::mt19937_64 random(seed);
  for (const uint32_t layer : kLayers) {
    const Tokens tokens = Tokens::Random(f, static_cast<size_t>(count), random);
    const std::vector<float> queries = RandomFloats(4 * f.q_heads * f.head_dim, random);
    AppendBatch batch = tokens.Batch(id, layer, begin);
    batch.query_sample = queries;
    const auto ack = store.Append(batch, absl::InfiniteFuture());
    ASSERT_TRUE(ack.ok()) << ack.status();
  }
}

void Wait(SessionStore& store) {
  const absl::Status built = store.WaitForBuilds(absl::Now() + absl::Seconds(120));
  ASSERT_TRUE(built.ok()) << built;
}

void Fill(SessionStore& store, const std::string& id, Durability durability, uint64_t seed,
          int64_t tokens = kTokens) {
  ASSERT_TRUE(store
                  .OpenSession({.session_id = id,
                                .fingerprint = SmallFingerprint(),
                                .stored_layers = kLayers,
                                .durability = durability,
                                .tenant = "library",
                                .ttl_seconds = 3600,
                                .pinned = true,
                                .prefix_hashes = {{1}, {2}, {3}}})
                  .ok());
  for (int64_t begin = 0; begin < tokens; begin += 500) {
    Append(store, id, begin, std::min<int64_t>(500, tokens - begin), seed + begin);
  }
  Wait(store);
}

std::string Export(SessionStore& store, const std::string& id, const ExportOptions& options = {}) {
  auto source = store.ExportSession(id, options);
  EXPECT_TRUE(source.ok()) << source.status();
  if (!source.ok()) return {};
  std::string bytes, chunk;
  for (;;) {
    const absl::StatusOr<bool> more = (*source)->Next(chunk);
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) return bytes;
    EXPECT_LE(chunk.size(), kChunkBytesMax);
    bytes += chunk;
  }
}

absl::StatusOr<SessionDescription> Import(SessionStore& store, std::string_view bytes,
                                          const ImportOptions& options,
                                          size_t piece = kChunkBytesMax) {
  auto sink = store.ImportSession(options);
  if (!sink.ok()) return sink.status();
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
    const absl::Status written = (*sink)->Write(bytes.substr(0, piece));
    if (!written.ok()) return written;
  }
  return (*sink)->Finish();
}

// Everything that a session answers to some queries, as it is.
std::string Answers(SessionStore& store, const std::string& id, uint64_t seed) {
  const Fingerprint f = SmallFingerprint();
  std::mt19937_64 random(seed);
  std::string text;
  const auto add = [&](std::span<const float> numbers) {
    text.append(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
  };
  for (int i = 0; i < kQuestions; ++i) {
    const std::vector<float> queries = RandomFloats(f.q_heads * f.head_dim, random);
    AttendItem item{.session_id = id,
                    .layer = kLayers[i % 2],
                    .mode = i % 5 == 0 ? AttendMode::kExact : AttendMode::kIndexed,
                    .queries = queries};
    if (i % 3 == 0) item.selection = {SelectionGoal::kMaxError, 0.2};
    if (i % 3 == 1) item.selection = {SelectionGoal::kTopK, 20};
    const auto answers = store.Attend({&item, 1}, absl::InfiniteFuture());
    EXPECT_TRUE(answers.ok() && (*answers)[0].status.ok()) << answers.status();
    const AttendAnswer& answer = (*answers)[0];
    for (const auto* part :
         {&answer.output, &answer.log_sum_exp, &answer.coverage, &answer.estimated_error}) {
      add(*part);
    }
    absl::StrAppend(&text, " ", answer.read.exact_tokens, " ", answer.read.estimated_clusters, " ",
                    answer.range.end, ";");
    const auto found = store.Search(
        {.session_id = id, .layer = item.layer, .k = 5, .with_vectors = true, .queries = queries},
        absl::InfiniteFuture());
    EXPECT_TRUE(found.ok()) << found.status();
    for (const auto& hits : found->hits) {
      for (const SearchHit& hit : hits) absl::StrAppend(&text, hit.position, " ");
    }
  }
  return text;
}

class SnapshotTest : public ::testing::TestWithParam<std::tuple<Durability, Durability>> {
 protected:
  Durability from() const { return std::get<0>(GetParam()); }
  Durability to() const { return std::get<1>(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(
    Durabilities, SnapshotTest,
    ::testing::Combine(::testing::Values(Durability::kMemory, Durability::kDurable),
                       ::testing::Values(Durability::kMemory, Durability::kDurable)));

// As of a session that was truncated there.
TEST_P(SnapshotTest, EndsWhereItIsTold) {
  const TemporaryFolder from_folder, to_folder;
  auto source = Open(from_folder.path());
  Fill(*source, "book", from(), 1);
  auto target = Open(to_folder.path());
  for (const int64_t position : {int64_t{0}, int64_t{700}, int64_t{1024}, kTokens}) {
    const std::string id = absl::StrCat("copy", position);
    const auto made = Import(*target, Export(*source, "book", {.position = position}),
                             {.session_id = id, .durability = to()});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(made->watermark, position);
    EXPECT_EQ(made->layers[0].indexed_tokens, std::min<int64_t>(1792, position / 256 * 256));
    ASSERT_TRUE(source->ForkSession("book", {.position = position, .new_session_id = id}).ok());
    if (position == 0) continue;
    EXPECT_TRUE(Answers(*target, id, 2) == Answers(*source, id, 2));
  }
  EXPECT_TRUE(
      absl::IsOutOfRange(source->ExportSession("book", {.position = kTokens + 1}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(source->ExportSession("book", {.position = -1}).status()));
}

TEST_P(SnapshotTest, AnswersAreTheSameInAnotherStore) {
  const TemporaryFolder from_folder, to_folder;
  auto source = Open(from_folder.path());
  Fill(*source, "book", from(), 1);
  const std::string bytes = Export(*source, "book");
  auto target = Open(to_folder.path());
  const auto imported = Import(*target, bytes, {.session_id = "copy", .durability = to()}, 100003);
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(imported->session_id, "copy");
  EXPECT_EQ(imported->watermark, kTokens);
  EXPECT_EQ(imported->layers[0].indexed_tokens, 1792);  // nothing had to be built
  EXPECT_EQ(imported->tenant, "library");
  EXPECT_EQ(imported->ttl_seconds, 3600u);
  EXPECT_TRUE(imported->pinned);
  EXPECT_EQ(imported->durability, to());
  EXPECT_TRUE(Answers(*target, "copy", 2) == Answers(*source, "book", 2));
  // Found by its prefix.
  const auto reused = target->OpenSession({.session_id = "reused",
                                           .fingerprint = SmallFingerprint(),
                                           .stored_layers = kLayers,
                                           .tenant = "library",
                                           .prefix_hashes = {{1}, {2}, {9}},
                                           .reuse_prefix = true});
  ASSERT_TRUE(reused.ok()) << reused.status();
  EXPECT_EQ(reused->reused_tokens, 2 * static_cast<int64_t>(kPrefixBlockTokens));
  if (to() == Durability::kDurable) {
    target.reset();
    target = Open(to_folder.path());
    Wait(*target);
    EXPECT_EQ(target->DescribeSession("copy")->durable_watermark, kTokens);
    EXPECT_TRUE(Answers(*target, "copy", 3) == Answers(*source, "book", 3));
  }
  // Goes on as the original does.
  for (SessionStore* store : {source.get(), target.get()}) {
    const std::string id = store == source.get() ? "book" : "copy";
    Append(*store, id, kTokens, 300, 7);
    Wait(*store);
    EXPECT_EQ(store->DescribeSession(id)->layers[1].indexed_tokens, 2048);
    EXPECT_EQ(store->DescribeSession(id)->watermark, kTokens + 300);
  }
}

TEST_P(SnapshotTest, AfterATruncationAndOfAFork) {
  const TemporaryFolder folder;
  auto store = Open(folder.path());
  Fill(*store, "book", from(), 4);
  ASSERT_TRUE(store->ForkSession("book", {.position = 1500, .new_session_id = "fork"}).ok());
  ASSERT_TRUE(store->TruncateSession("book", 1100).ok());
  Append(*store, "book", 1100, 50, 5);
  Append(*store, "fork", 1500, 60, 6);
  Wait(*store);
  for (const std::string id : {"book", "fork"}) {
    const auto imported =
        Import(*store, Export(*store, id), {.session_id = id + "-copy", .durability = to()});
    ASSERT_TRUE(imported.ok()) << imported.status();
    EXPECT_TRUE(Answers(*store, id + "-copy", 8) == Answers(*store, id, 8));
  }
}

TEST(SessionSnapshotTest, AnEmptySessionAndOneWithoutSegments) {
  auto store = Open();
  Fill(*store, "empty", Durability::kMemory, 1, 0);
  Fill(*store, "short", Durability::kMemory, 1, 100);
  for (const std::string id : {"empty", "short"}) {
    const auto imported = Import(*store, Export(*store, id), {.session_id = id + "2"}, 1);
    ASSERT_TRUE(imported.ok()) << imported.status();
    EXPECT_EQ(imported->watermark, id == "empty" ? 0 : 100);
    EXPECT_TRUE(Answers(*store, id + "2", 8) == Answers(*store, id, 8));
  }
}

TEST(SessionSnapshotTest, AnIdThatIsTakenIsRefused) {
  auto store = Open();
  Fill(*store, "book", Durability::kMemory, 1, 300);
  const std::string bytes = Export(*store, "book");
  EXPECT_TRUE(absl::IsAlreadyExists(Import(*store, bytes, {}).status()));
  // Taken while the import is under way.
  auto sink = store->ImportSession({.session_id = "new"});
  ASSERT_TRUE(sink.ok());
  ASSERT_TRUE((*sink)->Write(bytes).ok());
  Fill(*store, "new", Durability::kMemory, 2, 10);
  EXPECT_TRUE(absl::IsAlreadyExists((*sink)->Finish().status()));
  EXPECT_EQ(store->DescribeSession("new")->watermark, 10);
  EXPECT_TRUE(absl::IsFailedPrecondition(
      Import(*store, bytes, {.session_id = "x", .durability = Durability::kDurable}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Import(*store, bytes, {.session_id = "a b"}).status()));
}

size_t SegmentFiles(const std::string& directory) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(directory + "/segments")) {
    count += entry.is_regular_file() ? 1 : 0;
  }
  return count;
}

TEST(SessionSnapshotTest, WhatIsDamagedOrCutOffIsNeverSeen) {
  const TemporaryFolder folder;
  auto store = Open(folder.path());
  Fill(*store, "book", Durability::kMemory, 1, 600);
  const std::string bytes = Export(*store, "book");
  const uint64_t memory = store->Status().memory.total();
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  const auto refused = [&](std::string_view damaged, Durability durability) {
    const auto imported = Import(*store, damaged, {.session_id = "copy", .durability = durability});
    EXPECT_FALSE(imported.ok());
    EXPECT_FALSE(absl::IsInternal(imported.status())) << imported.status();
    EXPECT_TRUE(absl::IsNotFound(store->DescribeSession("copy").status()));
  };
  for (int i = 0; i < 400; ++i) {
    const auto durability = i % 40 == 0 ? Durability::kDurable : Durability::kMemory;
    std::string damaged = bytes;
    const size_t at = i < 150 ? static_cast<size_t>(i) : random() % bytes.size();
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    refused(damaged, durability);
    refused(bytes.substr(
                0, i < 150 ? bytes.size() - 1 - static_cast<size_t>(i) : random() % bytes.size()),
            durability);
  }
  refused(bytes + "x", Durability::kMemory);
  EXPECT_EQ(store->Status().sessions, 1u);
  EXPECT_EQ(store->Status().memory.total(), memory);
  // Files of what was given up go at once, or with the next sync.
  ASSERT_TRUE(
      Import(*store, bytes, {.session_id = "copy", .durability = Durability::kDurable}).ok());
  ASSERT_TRUE(store->FlushSession("copy", absl::InfiniteFuture()).ok());
  const size_t needed = 2 * kLayers.size() * SmallFingerprint().kv_heads;
  EXPECT_EQ(SegmentFiles(folder.path()), needed);
}

// Right checksums around items that are changed, left out, repeated or swapped.
TEST(SessionSnapshotTest, WhatIsForgedDoesNoHarm) {
  auto store = Open();
  Fill(*store, "book", Durability::kMemory, 1, 600);
  std::vector<std::pair<SnapshotItemName, std::string>> items;
  SnapshotReader reader([](uint64_t) { return absl::OkStatus(); },
                        [&](const SnapshotItemName& name, std::string item) {
                          items.push_back({name, std::move(item)});
                          return absl::OkStatus();
                        });
  ASSERT_TRUE(reader.Read(Export(*store, "book")).ok());
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  int accepted = 0;
  for (int i = 0; i < 1500; ++i) {
    auto forged = items;
    const size_t at = random() % forged.size();
    std::string& item = forged[at].second;
    switch (random() % 6) {
      case 0:
        forged.erase(forged.begin() + static_cast<ptrdiff_t>(at));
        break;
      case 1:
        forged.insert(forged.begin() + static_cast<ptrdiff_t>(at), forged[at]);
        break;
      case 2:
        std::swap(forged[at], forged[random() % forged.size()]);
        break;
      case 3:
        item.resize(random() % (item.size() + 10));
        break;
      default: {
        // Lengths and counts are at the beginning.
        const size_t byte = random() % std::min<size_t>(item.size(), random() % 2 ? 120 : 1 << 20);
        item[byte] = static_cast<char>(random());
      }
    }
    SnapshotWriter writer(random());
    std::string bytes = writer.Begin();
    for (const auto& [name, content] : forged) {
      writer.StartItem(name, content);
      do {
        bytes += writer.NextBlock();
      } while (!writer.ItemDone());
    }
    const auto imported = Import(*store, bytes + writer.End(), {.session_id = "copy"});
    EXPECT_FALSE(absl::IsInternal(imported.status())) << imported.status();
    if (!imported.ok()) continue;
    ++accepted;  // such as one of another model id
    if (imported->fingerprint == SmallFingerprint()) Answers(*store, "copy", 1);
    ASSERT_TRUE(store->CloseSession("copy").ok());
  }
  EXPECT_GT(accepted, 0);
  EXPECT_EQ(store->Status().sessions, 1u);
}

TEST(SessionSnapshotTest, AppendsGoOnMeanwhile) {
  auto store = Open();
  Fill(*store, "book", Durability::kMemory, 1);
  std::atomic<bool> stop{false};
  std::thread appender([&] {
    for (int64_t begin = kTokens; !stop; begin += 37) {
      Append(*store, "book", begin, 37, static_cast<uint64_t>(begin));
    }
  });
  for (int i = 0; i < 5; ++i) {
    const std::string id = absl::StrCat("copy", i);
    const auto imported = Import(*store, Export(*store, "book"), {.session_id = id});
    ASSERT_TRUE(imported.ok()) << imported.status();
    EXPECT_GE(imported->watermark, kTokens);
    EXPECT_EQ(imported->layers[0].watermark, imported->layers[1].watermark);
    // The same tokens, wherever they are by now.
    const std::vector<float> queries(SmallFingerprint().q_heads * SmallFingerprint().head_dim, 1);
    std::vector<AttendItem> items(2);
    for (size_t j = 0; j < 2; ++j) {
      items[j] = {.session_id = j == 0 ? "book" : id,
                  .layer = 3,
                  .range = {0, imported->watermark},
                  .mode = AttendMode::kExact,
                  .queries = queries};
    }
    const auto answers = store->Attend(items, absl::InfiniteFuture());
    ASSERT_TRUE(answers.ok());
    for (size_t k = 0; k < (*answers)[0].output.size(); ++k) {
      EXPECT_NEAR((*answers)[0].output[k], (*answers)[1].output[k], 1e-5);
    }
  }
  stop = true;
  appender.join();
}

TEST(SessionSnapshotTest, SoManyAtATime) {
  auto store = Open();
  Fill(*store, "book", Durability::kMemory, 1, 10);
  std::vector<std::unique_ptr<SnapshotSource>> sources;
  for (size_t i = 0; i < SessionStore::kSnapshotsMax; ++i) {
    auto source = store->ExportSession("book");
    ASSERT_TRUE(source.ok());
    sources.push_back(*std::move(source));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(store->ExportSession("book").status()));
  EXPECT_TRUE(absl::IsResourceExhausted(store->ImportSession({}).status()));
  sources.pop_back();
  EXPECT_TRUE(store->ExportSession("book").ok());
}

}  // namespace
}  // namespace attic
