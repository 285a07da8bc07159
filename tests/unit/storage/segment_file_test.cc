#include "server/storage/segment_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr char kGolden[] = "tests/unit/storage/golden/segment_v1.seg";

void ExpectSameVectors(const VectorSource& source, const VectorArrays& expected) {
  const auto all = source.ReadAll();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->keys, expected.keys);
  EXPECT_EQ(all->values, expected.values);
}

void ExpectSameClusters(const VectorSource& source, const SampleSegment& expected) {
  const Segment& segment = *expected.segment;
  std::vector<ClusterRead> reads(segment.clusters.count);
  for (uint32_t c = 0; c < reads.size(); ++c) reads[c] = {.source = &source, .cluster = c};
  const absl::Status status = source.ReadClusters(reads);
  ASSERT_TRUE(status.ok()) << status;
  const size_t key_bytes = segment.head_dim * ElementBytes(segment.element_type);
  const size_t value_bytes = segment.value_dim * ElementBytes(segment.element_type);
  for (uint32_t c = 0; c < reads.size(); ++c) {
    const size_t row = segment.clusters.row_begin[c], rows = segment.clusters.rows(c);
    ASSERT_NE(reads[c].rows.keys, nullptr);
    EXPECT_TRUE(std::equal(reads[c].rows.keys, reads[c].rows.keys + rows * key_bytes,
                           expected.vectors.keys.begin() + row * key_bytes));
    EXPECT_TRUE(std::equal(reads[c].rows.values, reads[c].rows.values + rows * value_bytes,
                           expected.vectors.values.begin() + row * value_bytes));
    EXPECT_EQ(reads[c].disk_bytes, rows * (key_bytes + value_bytes));
  }
}

TEST(SegmentFile, WhatIsWrittenIsReadBack) {
  const SampleShape shapes[] = {
      {},
      {.element_type = ElementType::kFloat16, .head_dim = 32, .value_dim = 48},
      {.element_type = ElementType::kFloat32, .head_dim = 128, .value_dim = 128, .tokens = 3000},
      {.head_dim = 128, .value_dim = 128, .tokens = 8192, .clusters = 512, .super_clusters = 32},
      {.head_dim = 7, .value_dim = 5, .tokens = 333, .begin_position = 123456789},
      {.head_dim = 33, .value_dim = 1, .tokens = 64, .clusters = 1, .super_clusters = 1},
      {.head_dim = 1, .value_dim = 1024, .tokens = 1, .clusters = 1, .super_clusters = 1},
      // More clusters than tokens: some are empty.
      {.element_type = ElementType::kFloat32, .head_dim = 3, .tokens = 5, .clusters = 16},
  };
  uint32_t seed = 1;
  for (const SampleShape& shape : shapes) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << " head_dim " << shape.head_dim);
    const TemporaryFolder folder;
    const std::string path = folder.file("1.seg");
    const SampleSegment sample = BuiltSegment(shape, seed++);
    const auto bytes =
        WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(*bytes, std::filesystem::file_size(path));
    EXPECT_EQ(folder.file_count(), 1u);
    const auto file = OpenSegmentFile(MachineFileSystem(), path, SmallCache());
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->file_bytes, *bytes);
    ExpectSameSegment(*file->segment, *sample.segment);
    ExpectSameVectors(*file->vectors, sample.vectors);
    ExpectSameClusters(*file->vectors, sample);
    const absl::Status verified = VerifySegmentFile(*MachineFileSystem(), path);
    EXPECT_TRUE(verified.ok()) << verified;
  }
}

TEST(SegmentFile, TheFormatIsTheOneThatWasPublished) {
  const TemporaryFolder folder;
  const std::string path = folder.file("1.seg");
  const SampleSegment sample = HandMadeSegment();
  const auto bytes = WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const std::string golden = ReadBytes(kGolden);
  ASSERT_FALSE(golden.empty());
  EXPECT_TRUE(ReadBytes(path) == golden) << "the writer no longer makes the bytes of " << kGolden;
  const auto file = OpenSegmentFile(MachineFileSystem(), kGolden, SmallCache());
  ASSERT_TRUE(file.ok()) << file.status();
  ExpectSameSegment(*file->segment, *sample.segment);
  ExpectSameVectors(*file->vectors, sample.vectors);
  ExpectSameClusters(*file->vectors, sample);
}

TEST(SegmentFile, IdentityFollowsContent) {
  const TemporaryFolder folder;
  SampleSegment sample = HandMadeSegment();
  const auto identity = [&](const std::string& name) {
    const std::string path = folder.file(name);
    EXPECT_TRUE(WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors).ok());
    const auto file = OpenSegmentFile(MachineFileSystem(), path, SmallCache());
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? file->identity : 0;
  };
  const uint64_t first = identity("1.seg");
  EXPECT_EQ(identity("2.seg"), first);
  std::swap(sample.vectors.keys[0], sample.vectors.keys[2]);
  const uint64_t other_keys = identity("3.seg");
  EXPECT_NE(other_keys, first);
  sample.segment->begin_position += 1;
  EXPECT_NE(identity("4.seg"), other_keys);
}

TEST(SegmentFile, FilesThatExistAreNotReplaced) {
  const TemporaryFolder folder;
  const std::string path = folder.file("1.seg");
  WriteBytes(path, "something");
  const SampleSegment sample = HandMadeSegment();
  const auto bytes = WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors);
  EXPECT_EQ(bytes.status().code(), absl::StatusCode::kAlreadyExists) << bytes.status();
  EXPECT_EQ(ReadBytes(path), "something");
}

TEST(SegmentFile, RemainsOfACrashAreReplaced) {
  const TemporaryFolder folder;
  WriteBytes(folder.file("1.seg.tmp"), std::string(1 << 16, 'x'));
  const SampleSegment sample = HandMadeSegment();
  const std::string path = folder.file("1.seg");
  ASSERT_TRUE(WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors).ok());
  EXPECT_EQ(folder.file_count(), 1u);
  EXPECT_TRUE(VerifySegmentFile(*MachineFileSystem(), path).ok());
}

TEST(SegmentFile, SegmentsThatCouldNotBeOpenedAreNotWritten) {
  const TemporaryFolder folder;
  SampleSegment sample = HandMadeSegment();
  sample.segment->clusters.deviation[0] = std::numeric_limits<float>::infinity();
  const auto bytes =
      WriteSegmentFile(*MachineFileSystem(), folder.file("1.seg"), *sample.segment, sample.vectors);
  EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument) << bytes.status();
  EXPECT_EQ(folder.file_count(), 0u);
}

TEST(SegmentFile, AMissingFileIsNotFound) {
  const TemporaryFolder folder;
  const std::string path = folder.file("1.seg");
  const auto file = OpenSegmentFile(MachineFileSystem(), path, SmallCache());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kNotFound) << file.status();
  EXPECT_EQ(VerifySegmentFile(*MachineFileSystem(), path).code(), absl::StatusCode::kNotFound);
}

TEST(SegmentFile, AnOpenFileMayBeDeleted) {
  const TemporaryFolder folder;
  const std::string path = folder.file("1.seg");
  const SampleSegment sample = BuiltSegment({}, 7);
  ASSERT_TRUE(WriteSegmentFile(*MachineFileSystem(), path, *sample.segment, sample.vectors).ok());
  const auto file = OpenSegmentFile(MachineFileSystem(), path, SmallCache());
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::remove(path);
  ExpectSameVectors(*file->vectors, sample.vectors);
}

}  // namespace
}  // namespace attic
