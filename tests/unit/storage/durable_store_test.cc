#include "server/storage/durable_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/fault/fault_file_system.h"
#include "tests/fault/store_content.h"
#include "tests/fault/store_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

namespace fs = std::filesystem;

class DurableStoreTest : public ::testing::Test {
 protected:
  DurableStoreTest() { Open(); }

  void Open() {
    store_.reset();
    auto store = DurableStore::Open(SmallStore(path()));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::string path() const { return folder_.file("store"); }
  size_t segment_files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(path() + "/segments"), fs::directory_iterator()));
  }

  SessionRecord Session(const std::string& id) {
    std::mt19937 random(1);
    SessionRecord record = RandomRecord(random);
    record.session_id = id;
    record.stored_layers = {0};
    EXPECT_TRUE(store_->CreateSession(record, {}).ok());
    return record;
  }
  absl::Status Append(const SessionRecord& record, int64_t begin, uint64_t count) {
    const PieceContent content(record.fingerprint, begin, count, 3);
    return store_->AppendRows(record.key, 0, content.From(begin)).status();
  }
  absl::StatusOr<SegmentReference> Add(const SessionRecord& record, int64_t begin,
                                       std::shared_ptr<const VectorSource>* source = nullptr) {
    const SegmentContent content(begin, 5);
    return store_->AddSegment({record.key, 0, 0}, content.segment, content.vectors, source);
  }
  std::vector<std::pair<int64_t, size_t>> Pieces(const SessionRecord& record, int64_t begin) {
    std::vector<std::pair<int64_t, size_t>> pieces;
    EXPECT_TRUE(store_
                    ->ReadRows(record.key, 0, begin,
                               [&](const RowsRecord& rows) {
                                 pieces.emplace_back(rows.begin_position, rows.count);
                                 return absl::OkStatus();
                               })
                    .ok());
    return pieces;
  }

  TemporaryFolder folder_;
  std::unique_ptr<DurableStore> store_;
};

using Pair = std::pair<int64_t, size_t>;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(DurableStoreTest, DoesAsTheModelDoes) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    store_.reset();
    fs::remove_all(path());
    Open();
    StoreDriver driver(seed, {.piece_rows_max = 60, .large_pieces = seed % 2 == 0});
    std::mt19937 random(seed);
    for (int step = 0; step < 120; ++step) {
      const absl::Status done = driver.Step(*store_);
      ASSERT_TRUE(done.ok()) << driver.last_operation() << ": " << done;
      if (random() % 20 == 0) Open();
      if (random() % 8 != 0) continue;
      const absl::StatusOr<std::string> found = DescribeStore(*store_);
      ASSERT_TRUE(found.ok()) << found.status();
      ASSERT_EQ(*found, driver.Expected()) << "after " << driver.last_operation();
    }
    EXPECT_THAT(store_->damage(), IsEmpty());
  }
}

TEST_F(DurableStoreTest, APieceAcrossThePositionIsKeptAndCut) {
  const SessionRecord record = Session("a");
  for (int64_t begin : {0, 10, 20, 30}) ASSERT_TRUE(Append(record, begin, 10).ok());
  EXPECT_THAT(Pieces(record, 0),
              ElementsAre(Pair(0, 10), Pair(10, 10), Pair(20, 10), Pair(30, 10)));
  ASSERT_TRUE(store_->DropRows(record.key, 0, 15).ok());
  EXPECT_THAT(Pieces(record, 0), IsEmpty());  // a gap
  EXPECT_THAT(Pieces(record, 15), ElementsAre(Pair(15, 5), Pair(20, 10), Pair(30, 10)));
  ASSERT_TRUE(store_->DropRows(record.key, 0, 20).ok());
  EXPECT_THAT(Pieces(record, 15), IsEmpty());
  EXPECT_THAT(Pieces(record, 20), ElementsAre(Pair(20, 10), Pair(30, 10)));
  ASSERT_TRUE(Append(record, 50, 10).ok());
  EXPECT_THAT(Pieces(record, 25), ElementsAre(Pair(25, 5), Pair(30, 10)));  // up to the gap
}

TEST_F(DurableStoreTest, SegmentsFollowEachOther) {
  const SessionRecord record = Session("a");
  ASSERT_TRUE(Add(record, 0).ok());
  EXPECT_EQ(Add(record, 0).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Add(record, 14).status().code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(Add(record, 7).ok());
  EXPECT_EQ(segment_files(), 2u);
  EXPECT_EQ(store_->Segments({record.key, 0, 0})->size(), 2u);
}

TEST_F(DurableStoreTest, AFileGoesWithItsLastSessionAndItsLastReader) {
  const SessionRecord first = Session("a");
  std::shared_ptr<const VectorSource> source;
  const absl::StatusOr<SegmentReference> reference = Add(first, 0, &source);
  ASSERT_TRUE(reference.ok());
  SessionRecord fork = first;
  fork.session_id = "b";
  const LayerState layer{.layer = 0, .segments = {{*reference}}};
  ASSERT_TRUE(store_->CreateSession(fork, {&layer, 1}).ok());
  ASSERT_TRUE(store_->RemoveSession(first.key).ok());
  EXPECT_EQ(segment_files(), 1u);
  ASSERT_TRUE(store_->RemoveSession(fork.key).ok());
  EXPECT_EQ(segment_files(), 1u);
  EXPECT_GT(store_->disk_bytes(), 0u);
  EXPECT_TRUE(source->ReadAll().ok());
  source.reset();
  ASSERT_TRUE(Append(Session("c"), 0, 1).ok());
  ASSERT_TRUE(store_->Sync().ok());
  EXPECT_EQ(segment_files(), 0u);
  EXPECT_EQ(store_->OpenSegment(*reference).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DurableStoreTest, SpilledSegmentsGoWithTheirSourceOrTheProcess) {
  const SegmentContent content(0, 5);
  auto source = store_->SpillSegment(content.segment, content.vectors);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ((*source)->ReadAll()->keys, content.vectors.keys);
  EXPECT_EQ(segment_files(), 1u);
  store_.reset();
  EXPECT_EQ(segment_files(), 1u);
  Open();
  EXPECT_EQ(segment_files(), 0u);
}

TEST_F(DurableStoreTest, AMissingSegmentFileIsReported) {
  const SessionRecord record = Session("a");
  const absl::StatusOr<SegmentReference> reference = Add(record, 0);
  ASSERT_TRUE(reference.ok());
  ASSERT_TRUE(store_->Sync().ok());
  store_.reset();
  fs::remove(path() + "/segments/0000000000000001.seg");
  Open();
  ASSERT_EQ(store_->damage().size(), 1u);
  EXPECT_THAT(store_->damage()[0].file, ::testing::HasSubstr("0000000000000001.seg"));
  EXPECT_EQ(store_->OpenSegment(*reference).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DurableStoreTest, AnotherVersionIsRefused) {
  store_.reset();
  WriteBytes(path() + "/VERSION", "attic data directory 2\n");
  const absl::Status refused = DurableStore::Open(SmallStore(path())).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr(path()));
}

TEST_F(DurableStoreTest, AFolderOfSomethingElseIsRefused) {
  const std::string other = folder_.file("other");
  fs::create_directory(other);
  WriteBytes(other + "/thesis.tex", "x");
  EXPECT_EQ(DurableStore::Open(SmallStore(other)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReadBytes(other + "/thesis.tex"), "x");
}

TEST_F(DurableStoreTest, WhatIsWrongIsRefused) {
  const SessionRecord record = Session("a");
  EXPECT_EQ(Append(record, -1, 1).code(), absl::StatusCode::kInvalidArgument);
  const RowsRecord nothing;
  EXPECT_EQ(store_->AppendRows(record.key, 0, nothing).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->UpdateSession({.key = record.key + 1}).code(), absl::StatusCode::kNotFound);
  const LayerState layer{.layer = 0, .segments = {{{.file = 99, .tokens = 7}}}};
  EXPECT_EQ(store_->ReplaceLayers(record.key, {&layer, 1}).code(), absl::StatusCode::kNotFound);
}

TEST_F(DurableStoreTest, SyncsAtTheSameTimeAreShared) {
  store_.reset();
  auto files = std::make_shared<FaultFileSystem>(MachineFileSystem(), folder_.file("shared"));
  auto store = DurableStore::Open(SmallStore(folder_.file("shared"), files));
  ASSERT_TRUE(store.ok());
  std::mt19937 random(1);
  SessionRecord record = RandomRecord(random);
  record.session_id = "a";
  ASSERT_TRUE((*store)->CreateSession(record, {}).ok());
  constexpr int kThreads = 4, kAppends = 50;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kAppends; ++i) {
        const PieceContent content(record.fingerprint, i, 1, thread);
        const auto write = (*store)->AppendRows(record.key, thread, content.From(i));
        if (!write.ok() || !(*store)->Sync().ok()) ++failures;
        if (write.ok() && (*store)->durable_write() < *write) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    int pieces = 0;
    EXPECT_TRUE((*store)
                    ->ReadRows(record.key, thread, 0,
                               [&](const RowsRecord&) {
                                 ++pieces;
                                 return absl::OkStatus();
                               })
                    .ok());
    EXPECT_EQ(pieces, kAppends);
  }
}

TEST_F(DurableStoreTest, TheRoomOfDroppedRowsIsGivenBack) {
  store_.reset();
  DurableStoreOptions options = SmallStore(path());
  options.rows_buffer_bytes = 1u << 20;
  auto store = DurableStore::Open(options);
  ASSERT_TRUE(store.ok());
  std::mt19937 random(1);
  SessionRecord record = RandomRecord(random);
  record.session_id = "a";
  ASSERT_TRUE((*store)->CreateSession(record, {}).ok());
  const std::vector<std::byte> bytes(256 << 10, std::byte{7});
  uint64_t most = 0;
  for (int64_t position = 0; position < 800; ++position) {
    const RowsRecord rows{.begin_position = position, .count = 1, .keys = bytes, .values = bytes};
    ASSERT_TRUE((*store)->AppendRows(record.key, 0, rows).ok());
    ASSERT_TRUE((*store)->DropRows(record.key, 0, position - 8).ok());
    uint64_t used = 0;
    for (const auto& entry : fs::directory_iterator(path() + "/records")) {
      std::error_code gone;
      const uint64_t size = entry.file_size(gone);
      if (!gone) used += size;
    }
    most = std::max(most, used);
  }
  // 400 MiB went through, 4 MiB are held.
  EXPECT_LT(most, 64u << 20);
  std::printf("at most %.1f MiB\n", static_cast<double>(most) / (1 << 20));
}

}  // namespace
}  // namespace attic
