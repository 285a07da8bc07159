#include "server/storage/file_vectors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <thread>
#include <vector>

#include "server/storage/segment_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

class FileVectorsTest : public testing::Test {
 protected:
  static constexpr size_t kFiles = 3;

  void SetUp() override {
    for (uint32_t i = 0; i < kFiles; ++i) {
      const SampleShape shape{
          .element_type = i == 1 ? ElementType::kFloat32 : ElementType::kBFloat16,
          .head_dim = 16,
          .value_dim = 8 + 8 * i,
          .tokens = 400,
          .clusters = 40};
      samples_.push_back(BuiltSegment(shape, 21 + i));
      const std::string path = folder_.file(std::to_string(i) + ".seg");
      const SampleSegment& sample = samples_.back();
      ASSERT_TRUE(
          WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors).ok());
      auto file = OpenSegmentFile(MachineFileSystem(), path, cache_);
      ASSERT_TRUE(file.ok()) << file.status();
      files_.push_back(*std::move(file));
    }
  }

  size_t ClusterBytes(size_t file, uint32_t cluster) const {
    const Segment& segment = *samples_[file].segment;
    return segment.clusters.rows(cluster) * (segment.head_dim + segment.value_dim) *
           ElementBytes(segment.element_type);
  }

  void ExpectRows(size_t file, const ClusterRead& read) const {
    const SampleSegment& sample = samples_[file];
    const Segment& segment = *sample.segment;
    const size_t row = segment.clusters.row_begin[read.cluster];
    const size_t rows = segment.clusters.rows(read.cluster);
    const size_t key_bytes = segment.head_dim * ElementBytes(segment.element_type);
    const size_t value_bytes = segment.value_dim * ElementBytes(segment.element_type);
    EXPECT_TRUE(std::equal(read.rows.keys, read.rows.keys + rows * key_bytes,
                           sample.vectors.keys.begin() + row * key_bytes));
    EXPECT_TRUE(std::equal(read.rows.values, read.rows.values + rows * value_bytes,
                           sample.vectors.values.begin() + row * value_bytes));
  }

  ClusterRead ReadOf(size_t file, uint32_t cluster) const {
    return {.source = files_[file].vectors.get(), .cluster = cluster};
  }

  const TemporaryFolder folder_;
  const std::shared_ptr<ClusterCache> cache_ = SmallCache(64 << 10);
  std::vector<SampleSegment> samples_;
  std::vector<SegmentFile> files_;
};

TEST_F(FileVectorsTest, ASecondReadNeedsNoDisk) {
  for (const bool again : {false, true}) {
    ClusterRead reads[] = {ReadOf(0, 5), ReadOf(1, 7), ReadOf(0, 6), ReadOf(2, 39)};
    ASSERT_TRUE(files_[0].vectors->ReadClusters(reads).ok());
    const size_t files[] = {0, 1, 0, 2};
    for (size_t i = 0; i < 4; ++i) {
      ExpectRows(files[i], reads[i]);
      EXPECT_EQ(reads[i].disk_bytes, again ? 0 : ClusterBytes(files[i], reads[i].cluster));
    }
  }
  const ClusterCacheUse use = cache_->use();
  EXPECT_EQ(use.hits, 4u);
  EXPECT_EQ(use.misses, 4u);
  EXPECT_EQ(use.disk_bytes,
            ClusterBytes(0, 5) + ClusterBytes(0, 6) + ClusterBytes(1, 7) + ClusterBytes(2, 39));
}

TEST_F(FileVectorsTest, AClusterAskedForTwiceIsReadOnce) {
  ClusterRead reads[] = {ReadOf(0, 5), ReadOf(0, 4), ReadOf(0, 5), ReadOf(0, 5)};
  ASSERT_TRUE(files_[0].vectors->ReadClusters(reads).ok());
  for (const ClusterRead& read : reads) ExpectRows(0, read);
  EXPECT_EQ(cache_->use().disk_bytes, ClusterBytes(0, 4) + ClusterBytes(0, 5));
  EXPECT_EQ(reads[0].rows.keys, reads[2].rows.keys);
}

TEST_F(FileVectorsTest, KeptRowsNeedNoDisk) {
  const SampleSegment& sample = samples_[2];
  const size_t row = sample.segment->clusters.row_begin[3];
  const size_t rows = sample.segment->clusters.rows(3);
  files_[2].vectors->Keep(3, std::span(sample.vectors.keys).subspan(row * 32, rows * 32),
                          std::span(sample.vectors.values).subspan(row * 48, rows * 48));
  ClusterRead read = ReadOf(2, 3);
  ASSERT_TRUE(files_[2].vectors->ReadClusters({&read, 1}).ok());
  ExpectRows(2, read);
  EXPECT_EQ(read.disk_bytes, 0u);
  EXPECT_EQ(cache_->use().disk_bytes, 0u);
}

TEST_F(FileVectorsTest, ReadingAllPassesTheCache) {
  const auto all = files_[1].vectors->ReadAll();
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->keys, samples_[1].vectors.keys);
  EXPECT_EQ(all->values, samples_[1].vectors.values);
  EXPECT_EQ(cache_->use().bytes, 0u);
  EXPECT_EQ(cache_->use().disk_bytes, samples_[1].vectors.bytes());
}

// On a file system that cannot there is an error and no wrong data.
TEST_F(FileVectorsTest, DirectReadsReadTheSame) {
  const auto file =
      OpenSegmentFile(MachineFileSystem(), folder_.file("2.seg"), cache_, {.direct_reads = true});
  if (!file.ok()) GTEST_SKIP() << file.status();
  const auto all = file->vectors->ReadAll();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->keys, samples_[2].vectors.keys);
  EXPECT_EQ(all->values, samples_[2].vectors.values);
  for (uint32_t c = 0; c < 40; ++c) {
    ClusterRead read{.source = file->vectors.get(), .cluster = c};
    ASSERT_TRUE(file->vectors->ReadClusters({&read, 1}).ok());
    ExpectRows(2, read);
  }
  std::filesystem::resize_file(folder_.file("2.seg"), file->file_bytes - 1);
  EXPECT_EQ(file->vectors->ReadAll().status().code(), absl::StatusCode::kDataLoss);
}

// The cache holds a part of what is read, so that clusters come and go all the time.
TEST_F(FileVectorsTest, ManyThreadsReadWhatIsThere) {
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(31 + t);
      for (int i = 0; i < 200; ++i) {
        std::vector<ClusterRead> reads;
        std::vector<size_t> files;
        for (size_t n = 1 + random() % 20; n > 0; --n) {
          files.push_back(random() % kFiles);
          reads.push_back(ReadOf(files.back(), random() % 40));
        }
        const absl::Status status = files_[files[0]].vectors->ReadClusters(reads);
        ASSERT_TRUE(status.ok()) << status;
        for (size_t n = 0; n < reads.size(); ++n) ExpectRows(files[n], reads[n]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(cache_->use().hits, 0u);
  EXPECT_GT(cache_->use().misses, 0u);
}

}  // namespace
}  // namespace attic
