// Whatever byte of a segment file changes, and wherever it is cut, reading says so.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "server/storage/segment_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

class SegmentDamage : public testing::Test {
 protected:
  void Write(const SampleSegment& sample) {
    const auto bytes =
        WriteSegmentFile(*MachineFileSystem(), path_, *sample.segment, sample.vectors);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    whole_ = ReadBytes(path_);
    ASSERT_TRUE(VerifySegmentFile(*MachineFileSystem(), path_).ok());
  }

  // Changes one byte of the file.
  void Put(size_t offset, char byte) const {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
    ASSERT_TRUE(file.flush().good());
  }

  // All ways to read the file say that it is damaged; messages name it.
  void ExpectDamage() const {
    ExpectDataLoss(VerifySegmentFile(*MachineFileSystem(), path_));
    const auto file = OpenSegmentFile(MachineFileSystem(), path_, cache_);
    if (!file.ok()) return ExpectDataLoss(file.status());
    ExpectDataLoss(file->vectors->ReadAll().status());
    std::vector<ClusterRead> reads(file->segment->clusters.count);
    for (uint32_t c = 0; c < reads.size(); ++c) {
      reads[c] = {.source = file->vectors.get(), .cluster = c};
    }
    ExpectDataLoss(file->vectors->ReadClusters(reads));
  }

  void ExpectDataLoss(const absl::Status& status) const {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_NE(std::string(status.message()).find(path_), std::string::npos) << status;
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_.file("1.seg");
  const std::shared_ptr<ClusterCache> cache_ = SmallCache();
  std::string whole_;
};

TEST_F(SegmentDamage, AnyByteOfASmallFile) {
  Write(HandMadeSegment());
  std::mt19937 random(11);
  for (size_t offset = 0; offset < whole_.size() && !HasFailure(); ++offset) {
    const auto flip = static_cast<char>(1 + random() % 255);
    SCOPED_TRACE(testing::Message() << "byte " << offset << " xor " << int{flip});
    Put(offset, static_cast<char>(whole_[offset] ^ flip));
    ExpectDamage();
    Put(offset, whole_[offset]);
  }
  EXPECT_TRUE(VerifySegmentFile(*MachineFileSystem(), path_).ok());
}

TEST_F(SegmentDamage, AnyBitOfALargeFile) {
  Write(BuiltSegment({.head_dim = 64, .value_dim = 32, .tokens = 1500, .clusters = 48}, 3));
  std::mt19937 random(12);
  for (int i = 0; i < 2000 && !HasFailure(); ++i) {
    const size_t offset = random() % whole_.size(), bit = random() % 8;
    SCOPED_TRACE(testing::Message() << "byte " << offset << " bit " << bit);
    Put(offset, static_cast<char>(whole_[offset] ^ (1 << bit)));
    ExpectDamage();
    Put(offset, whole_[offset]);
  }
}

TEST_F(SegmentDamage, AnyOtherLength) {
  Write(HandMadeSegment());
  std::filesystem::resize_file(path_, whole_.size() + 1);
  ExpectDamage();
  for (size_t bytes = whole_.size(); bytes-- > 0 && !HasFailure();) {
    SCOPED_TRACE(testing::Message() << bytes << " bytes");
    std::filesystem::resize_file(path_, bytes);
    ExpectDamage();
  }
}

TEST_F(SegmentDamage, AFileThatIsCutWhileItIsOpen) {
  Write(HandMadeSegment());
  const auto file = OpenSegmentFile(MachineFileSystem(), path_, cache_);
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::resize_file(path_, whole_.size() - 1);
  ExpectDataLoss(file->vectors->ReadAll().status());
  ClusterRead last{.source = file->vectors.get(), .cluster = 3};
  const absl::Status cut = file->vectors->ReadClusters({&last, 1});
  ExpectDataLoss(cut);
  EXPECT_NE(std::string(cut.message()).find("truncated"), std::string::npos) << cut;
  ClusterRead first{.source = file->vectors.get(), .cluster = 0};
  EXPECT_TRUE(file->vectors->ReadClusters({&first, 1}).ok());
}

// Blocks that are whole but not in their place: two clusters of one size, and the same place of a
// file of the same shape.
TEST_F(SegmentDamage, ClustersThatWereSwapped) {
  SampleSegment sample = HandMadeSegment();
  Segment& segment = *sample.segment;
  segment.clusters.row_begin = {0, 1, 2, 3, 7};
  segment.clusters.log_count = {0.0f, 0.0f, 0.0f, 1.386294f};
  segment.clusters.deviation_limit = {0.0f, 0.0f, 0.0f, 1.665109f};
  Write(sample);
  const size_t begin = whole_.size() - sample.vectors.bytes(), cluster = 2 * (5 + 3);
  const std::string swapped = whole_.substr(0, begin) + whole_.substr(begin + cluster, cluster) +
                              whole_.substr(begin, cluster) + whole_.substr(begin + 2 * cluster);
  ASSERT_NE(swapped, whole_);
  WriteBytes(path_, swapped);
  ExpectDamage();
}

TEST_F(SegmentDamage, SectionsAndClustersOfAnotherFile) {
  const SampleSegment sample = HandMadeSegment();
  Write(sample);
  const std::string first = whole_;
  sample.segment->begin_position += 8192;
  std::filesystem::remove(path_);
  Write(sample);
  ASSERT_EQ(first.size(), whole_.size());
  // Contents are the same but for the header, so only where checksums lie does it matter.
  WriteBytes(path_, first.substr(0, 512) + whole_.substr(512));
  ExpectDamage();
}

}  // namespace
}  // namespace attic
