// Files whose checksums are right and whose content is not: refused, and never a crash.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <random>

#include "server/index/codes/residual_kernels.h"
#include "server/storage/segment_arrays.h"
#include "server/storage/segment_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"
#include "xxhash.h"

namespace attic {
namespace {

constexpr size_t kChecksumOffset = kSegmentHeaderBytes - 8;
constexpr size_t kTableOffset = 128;
constexpr size_t kTableEntryBytes = 32;

template <typename T>
T Get(const std::string& file, size_t offset) {
  T x;
  std::memcpy(&x, file.data() + offset, sizeof(x));
  return x;
}
template <typename T>
void Put(std::string& file, size_t offset, T x) {
  std::memcpy(file.data() + offset, &x, sizeof(x));
}

std::span<const std::byte> Bytes(const std::string& file, size_t offset, size_t bytes) {
  return std::as_bytes(std::span(file)).subspan(offset, bytes);
}

size_t SectionOffset(const std::string& file, SectionKind kind) {
  return Get<uint64_t>(file, kTableOffset + (static_cast<size_t>(kind) - 1) * kTableEntryBytes + 8);
}

void SealHeader(std::string& file) {
  Put<uint64_t>(file, kChecksumOffset, XXH3_64bits(file.data(), kChecksumOffset));
}

// Makes the checksums of sections and header right again, as far as what they say of places is
// within the file.
void SealSections(std::string& file) {
  const auto identity = Get<uint64_t>(file, 16);
  for (uint32_t i = 0; i + 1 < kSectionCount; ++i) {
    const size_t at = kTableOffset + i * kTableEntryBytes;
    const auto offset = Get<uint64_t>(file, at + 8), bytes = Get<uint64_t>(file, at + 16);
    if (offset > file.size() || bytes > file.size() - offset) continue;
    Put<uint64_t>(
        file, at + 24,
        BlockChecksum(Bytes(file, offset, bytes), identity, static_cast<SectionKind>(i + 1)));
  }
  SealHeader(file);
}

// The same, and the checksums of clusters.
void Seal(std::string& file) {
  const auto identity = Get<uint64_t>(file, 16);
  const size_t clusters = SectionOffset(file, SectionKind::kClusterTable);
  const auto count = Get<uint32_t>(file, 56);
  const size_t room = clusters < file.size() ? (file.size() - clusters) / sizeof(ClusterEntry) : 0;
  for (uint32_t c = 0; c < std::min<size_t>(count, room); ++c) {
    auto entry = Get<ClusterEntry>(file, clusters + c * sizeof(ClusterEntry));
    if (entry.offset > file.size() || entry.bytes > file.size() - entry.offset) continue;
    entry.checksum =
        BlockChecksum(Bytes(file, entry.offset, entry.bytes), identity, SectionKind::kVectors, c);
    Put(file, clusters + c * sizeof(ClusterEntry), entry);
  }
  SealSections(file);
}

// Touches all that searches read through.
void Use(const Segment& segment) {
  const std::vector<uint32_t> rows = segment.RowsByPosition();
  std::vector<int16_t> coefficients(4 * segment.residuals.row_bytes, 1);
  std::vector<float> logits(segment.tokens);
  size_t used = segment.FindRow(segment.begin_position) + rows[0];
  for (size_t s = 0; s < segment.super_clusters.count; ++s) {
    const uint32_t begin = segment.super_cluster_begin[s], end = segment.super_cluster_begin[s + 1];
    for (uint32_t c = begin; c < end; ++c) {
      const Segment::Rows some =
          segment.RowsInRange(c, {segment.begin_position + 1, segment.end_position() - 1});
      used += some.end - some.begin;
      const ResidualScoring scoring{coefficients.data(), 1, 0, 0, 0};
      float best = 0;
      ScoreResiduals(segment.coded_rows(c), {&scoring, 1}, logits.data(), {&best, 1});
      ASSERT_FALSE(std::isnan(best));
    }
    for (uint32_t b = segment.codes.group_block[s]; b < segment.codes.group_block[s + 1]; ++b) {
      const uint8_t* block = segment.codes.block(b);
      used += std::accumulate(block, block + segment.codes.block_bytes(), size_t{0});
      for (size_t slot = 0; slot < kCodeBlockRows; ++slot) {
        const uint16_t row = segment.codes.row[b * kCodeBlockRows + slot];
        if (row != SignCodes::kNoRow) used += segment.cluster_of_row(row) + segment.position(row);
      }
    }
  }
  ASSERT_GT(used, 0u);
}

class SegmentCrafted : public testing::Test {
 protected:
  void Write(const SampleSegment& sample) {
    const auto bytes =
        WriteSegmentFile(*MachineFileSystem(), path_, *sample.segment, sample.vectors);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    whole_ = ReadBytes(path_);
  }

  absl::StatusOr<SegmentFile> Open(const std::string& bytes) {
    WriteBytes(path_, bytes);
    return OpenSegmentFile(MachineFileSystem(), path_, cache_);
  }

  // Opening says DATA_LOSS once the bytes at `offset` are those of `x`.
  template <typename T>
  void ExpectRefused(size_t offset, T x) {
    SCOPED_TRACE(testing::Message() << "offset " << offset << " value " << +x);
    std::string file = whole_;
    ASSERT_NE(Get<T>(file, offset), x);
    Put<T>(file, offset, x);
    Seal(file);
    const auto opened = Open(file);
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kDataLoss) << opened.status();
  }

  // The same for element `index` of an array of the file.
  template <typename T>
  void ExpectRefused(const std::vector<T>& (*array_of)(const Segment&), size_t index, T x) {
    ExpectRefused<T>(OffsetOf(array_of) + index * sizeof(T), x);
  }

  // Where an array lies in the file.
  template <typename T>
  size_t OffsetOf(const std::vector<T>& (*array_of)(const Segment&)) {
    const Segment& segment = *sample_.segment;
    const auto* wanted = static_cast<const void*>(&array_of(segment));
    size_t offset = 0, found = 0;
    SectionKind in = SectionKind::kVectors;
    ForEachArray(segment, SegmentShape::Of(segment),
                 [&](SectionKind kind, const auto& array, size_t elements) {
                   if (kind != in) offset = SectionOffset(whole_, kind);
                   in = kind;
                   if (static_cast<const void*>(&array) == wanted) found = offset;
                   offset += elements * sizeof(array[0]);
                 });
    EXPECT_GT(found, 0u);
    return found;
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_.file("1.seg");
  const std::shared_ptr<ClusterCache> cache_ = SmallCache();
  const SampleSegment sample_ = HandMadeSegment();
  std::string whole_;
};

TEST_F(SegmentCrafted, SealingAWholeFileChangesNothing) {
  Write(sample_);
  std::string file = whole_;
  Seal(file);
  EXPECT_TRUE(file == whole_);
}

TEST_F(SegmentCrafted, UnknownVersions) {
  Write(sample_);
  for (const size_t offset : {8, 12}) {
    std::string file = whole_;
    Put<uint32_t>(file, offset, 2);
    SealHeader(file);
    const auto opened = Open(file);
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition) << opened.status();
    EXPECT_NE(std::string(opened.status().message()).find(path_), std::string::npos);
  }
}

TEST_F(SegmentCrafted, CountsOfTheHeader) {
  Write(sample_);
  constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
  for (size_t offset = 40; offset <= 68; offset += 4) {
    const auto now = Get<uint32_t>(whole_, offset);
    for (const uint32_t x : {0u, now + 1, now - 1, 65535u, 65536u, 1u << 31, kMost}) {
      // Half precision is as wide as bfloat16: that file is whole.
      const bool whole = offset == 44 && x == static_cast<uint32_t>(ElementType::kFloat16);
      if (x != now && !whole) ExpectRefused<uint32_t>(offset, x);
    }
  }
  ExpectRefused<uint64_t>(24, whole_.size() + 1);
  ExpectRefused<uint64_t>(24, std::numeric_limits<uint64_t>::max());
  ExpectRefused<int64_t>(32, -1);
  ExpectRefused<int64_t>(32, std::numeric_limits<int64_t>::max() - 6);
  for (size_t offset = 72; offset < kTableOffset; ++offset) ExpectRefused<uint8_t>(offset, 1);
  for (size_t offset = kTableOffset + kSectionCount * kTableEntryBytes; offset < kChecksumOffset;
       ++offset) {
    ExpectRefused<uint8_t>(offset, 1);
  }
}

TEST_F(SegmentCrafted, TheSectionTable) {
  Write(sample_);
  for (size_t i = 0; i < kSectionCount; ++i) {
    const size_t at = kTableOffset + i * kTableEntryBytes;
    ExpectRefused<uint32_t>(at, 0);
    ExpectRefused<uint32_t>(at, 77);
    ExpectRefused<uint32_t>(at + 4, 1);
    for (const size_t field : {at + 8, at + 16}) {
      ExpectRefused<uint64_t>(field, 0);
      ExpectRefused<uint64_t>(field, Get<uint64_t>(whole_, field) + 8);
      ExpectRefused<uint64_t>(field, std::numeric_limits<uint64_t>::max() - 7);
    }
  }
  ExpectRefused<uint64_t>(kTableOffset + 8 * kTableEntryBytes + 24, 1);
}

TEST_F(SegmentCrafted, BytesBetweenSections) {
  Write(sample_);
  size_t checked = 0;
  for (size_t i = 0; i + 1 < kSectionCount; ++i) {
    const size_t at = kTableOffset + i * kTableEntryBytes;
    const size_t end = Get<uint64_t>(whole_, at + 8) + Get<uint64_t>(whole_, at + 16);
    for (size_t b = end; b < Get<uint64_t>(whole_, at + kTableEntryBytes + 8); ++b, ++checked) {
      ExpectRefused<uint8_t>(b, 1);
    }
  }
  EXPECT_GT(checked, 2000u);
}

TEST_F(SegmentCrafted, OrderOfRowsAndClusters) {
  Write(sample_);
  const auto cluster_rows = +[](const Segment& s) -> auto& { return s.clusters.row_begin; };
  const auto super_rows = +[](const Segment& s) -> auto& { return s.super_clusters.row_begin; };
  for (const auto array : {cluster_rows, super_rows}) {
    ExpectRefused<uint32_t>(array, 0, 1);
    ExpectRefused<uint32_t>(array, 1, 8);
    ExpectRefused<uint32_t>(array, 1, 0xFFFFFFFF);
  }
  ExpectRefused<uint32_t>(super_rows, 1, 3);
  ExpectRefused<uint32_t>(cluster_rows, 4, 6);
  const auto begin = +[](const Segment& s) -> auto& { return s.super_cluster_begin; };
  ExpectRefused<uint32_t>(begin, 0, 1);
  ExpectRefused<uint32_t>(begin, 1, 5);
  ExpectRefused<uint32_t>(begin, 1, 3);
  ExpectRefused<uint32_t>(begin, 2, 3);
  const auto position = +[](const Segment& s) -> auto& { return s.row_position; };
  for (const uint16_t x : {0, 4, 7, 65535}) ExpectRefused<uint16_t>(position, 0, x);
}

TEST_F(SegmentCrafted, RowsOfASuperCluster) {
  Write(sample_);
  const auto row = +[](const Segment& s) -> auto& { return s.codes.row; };
  for (const uint16_t x : {0, 2, 7, 65534, 65535}) ExpectRefused<uint16_t>(row, 0, x);
  ExpectRefused<uint16_t>(row, 2, 0);
  ExpectRefused<uint16_t>(row, kCodeBlockRows, 1);
  const auto block = +[](const Segment& s) -> auto& { return s.codes.group_block; };
  for (const uint32_t x : {0u, 2u, 3u, 0xFFFFFFFFu}) ExpectRefused<uint32_t>(block, 1, x);
  ExpectRefused<uint32_t>(block, 0, 1);
  ExpectRefused<uint32_t>(block, 2, 1);
}

TEST_F(SegmentCrafted, NumbersThatAreNone) {
  Write(sample_);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float>& (*const arrays[])(const Segment&) = {
      [](const Segment& s) -> auto& {return s.clusters.log_count;
}
, [](const Segment& s) -> auto& { return s.clusters.deviation; }
, [](const Segment& s) -> auto& { return s.clusters.deviation_limit; }
, [](const Segment& s) -> auto& { return s.clusters.radius; }
, [](const Segment& s) -> auto& { return s.super_clusters.log_count; }
, [](const Segment& s) -> auto& { return s.super_clusters.deviation; }
, [](const Segment& s) -> auto& { return s.super_clusters.deviation_limit; }
, [](const Segment& s) -> auto& { return s.super_clusters.radius; }
, [](const Segment& s) -> auto& { return s.codes.radius; }
, [](const Segment& s) -> auto& { return s.codes.factor; }
, [](const Segment& s) -> auto& { return s.residuals.factor_unit; }
,
};  // namespace
for (const auto array : arrays) {
  for (const float x : {kInfinity, -kInfinity, kNaN, -1.0f}) ExpectRefused<float>(array, 0, x);
}
const std::vector<std::byte>& (*const narrow[])(const Segment&) = {
    [](const Segment& s) -> auto& {return s.clusters.centroids;
}  // namespace attic
, [](const Segment& s) -> auto& { return s.clusters.mean_values; }
, [](const Segment& s) -> auto& { return s.super_clusters.centroids; }
, [](const Segment& s) -> auto& { return s.super_clusters.mean_values; }
,
}
;
for (const auto array : narrow) {
  for (const uint16_t x : {0x7F80, 0xFF80, 0x7FC0}) {
    const size_t offset = OffsetOf(array) + 2 * sample_.segment->head_dim;
    ExpectRefused<uint16_t>(offset, x);
  }
}
}

TEST_F(SegmentCrafted, Facts) {
  Write(sample_);
  const size_t facts = SectionOffset(whole_, SectionKind::kFacts);
  for (size_t i = 0; i < kFactCount; ++i) {
    ExpectRefused<double>(facts + 8 * i, -1.0);
    ExpectRefused<double>(facts + 8 * i, std::numeric_limits<double>::quiet_NaN());
    ExpectRefused<double>(facts + 8 * i, std::numeric_limits<double>::infinity());
  }
}

TEST_F(SegmentCrafted, TheTableOfClusters) {
  Write(sample_);
  const size_t table = SectionOffset(whole_, SectionKind::kClusterTable);
  for (size_t c = 0; c < 4; ++c) {
    for (const size_t field : {table + 24 * c, table + 24 * c + 8}) {
      ExpectRefused<uint64_t>(field, Get<uint64_t>(whole_, field) + 16);
      ExpectRefused<uint64_t>(field, std::numeric_limits<uint64_t>::max());
    }
  }
}

// It is never read, so that only opening can notice.
TEST_F(SegmentCrafted, TheChecksumOfAnEmptyCluster) {
  Write(sample_);
  std::string file = whole_;
  const size_t table = SectionOffset(file, SectionKind::kClusterTable);
  ASSERT_EQ(Get<uint64_t>(file, table + 24 + 8), 0u);
  Put<uint64_t>(file, table + 24 + 16, Get<uint64_t>(file, table + 24 + 16) + 1);
  SealSections(file);
  const auto opened = Open(file);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kDataLoss) << opened.status();
}

TEST(BlockChecksum, DiffersWithFileKindAndCluster) {
  const std::vector<std::byte> bytes(100, std::byte{7});
  const uint64_t sum = BlockChecksum(bytes, 1, SectionKind::kVectors, 2);
  EXPECT_EQ(BlockChecksum(bytes, 1, SectionKind::kVectors, 2), sum);
  EXPECT_NE(BlockChecksum(bytes, 2, SectionKind::kVectors, 2), sum);
  EXPECT_NE(BlockChecksum(bytes, 1, SectionKind::kFacts, 2), sum);
  EXPECT_NE(BlockChecksum(bytes, 1, SectionKind::kVectors, 3), sum);
}

TEST_F(SegmentCrafted, VectorsThatAreNoNumbers) {
  Write(sample_);
  std::string file = whole_;
  Put<uint16_t>(file, SectionOffset(file, SectionKind::kVectors), 0x7F80);
  Seal(file);
  const auto opened = Open(file);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->vectors->ReadAll().status().code(), absl::StatusCode::kDataLoss);
  ClusterRead read{.source = opened->vectors.get(), .cluster = 0};
  EXPECT_EQ(opened->vectors->ReadClusters({&read, 1}).code(), absl::StatusCode::kDataLoss);
}

// Random changes: what is not refused can be used.
TEST_F(SegmentCrafted, RandomContent) {
  const SampleSegment samples[] = {
      HandMadeSegment(),
      BuiltSegment(
          {.head_dim = 8, .value_dim = 4, .tokens = 150, .clusters = 12, .super_clusters = 3}, 5)};
  std::mt19937 random(13);
  size_t refused = 0, used = 0;
  for (const SampleSegment& sample : samples) {
    std::filesystem::remove(path_);
    Write(sample);
    const size_t end = SectionOffset(whole_, SectionKind::kVectors);
    for (int i = 0; i < 4000 && !HasFailure(); ++i) {
      std::string file = whole_;
      const size_t changes = 1 + random() % 3;
      for (size_t n = 0; n < changes; ++n) file[random() % end] = static_cast<char>(random());
      SCOPED_TRACE(testing::Message() << "change " << i);
      Seal(file);
      const auto opened = Open(file);
      if (!opened.ok()) {
        ++refused;
        continue;
      }
      ++used;
      Use(*opened->segment);
      EXPECT_TRUE(opened->vectors->ReadAll().ok());
    }
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(used, 500u);
}

}  // namespace
}  // namespace attic
