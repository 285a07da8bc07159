// The disk fails at any operation, once or from then on.
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "server/storage/segment_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/faulty_file_system.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

using rocksdb::IOStatus;

constexpr size_t kForever = std::numeric_limits<size_t>::max();

class SegmentFaults : public testing::Test {
 protected:
  absl::Status Write() {
    return WriteSegmentFile(*faulty_, path_, *sample_.segment, sample_.vectors).status();
  }
  absl::Status Read(bool through_cache) {
    const auto file = OpenSegmentFile(faulty_, path_, SmallCache());
    if (!file.ok()) return file.status();
    if (!through_cache) return file->vectors->ReadAll().status();
    std::vector<ClusterRead> reads;
    // Every other cluster, so that nothing is joined.
    for (uint32_t c = 0; c < file->segment->clusters.count; c += 2) {
      reads.push_back({.source = file->vectors.get(), .cluster = c});
    }
    return file->vectors->ReadClusters(reads);
  }
  bool Whole() const { return VerifySegmentFile(*MachineFileSystem(), path_).ok(); }
  bool Names(const absl::Status& status) const {
    return std::string(status.message()).find(path_) != std::string::npos;
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_.file("1.seg");
  const std::shared_ptr<FaultyFileSystem> faulty_ =
      std::make_shared<FaultyFileSystem>(MachineFileSystem());
  // More than one append.
  const SampleSegment sample_ = BuiltSegment(
      {.element_type = ElementType::kFloat32, .head_dim = 128, .value_dim = 128, .tokens = 3000},
      17);
};

TEST_F(SegmentFaults, EveryOperationOfAWriteFailsOnce) {
  const struct {
    IOStatus error;
    absl::StatusCode code;
  } cases[] = {{IOStatus::NoSpace("disk"), absl::StatusCode::kResourceExhausted},
               {IOStatus::IOError("disk"), absl::StatusCode::kUnavailable}};
  for (const auto& c : cases) {
    size_t n = 0;
    for (;; ++n) {
      SCOPED_TRACE(testing::Message() << "operation " << n);
      faulty_->FailAt(n, 1, c.error);
      const absl::Status status = Write();
      if (faulty_->failures() == 0) {
        ASSERT_TRUE(status.ok()) << status;
        break;
      }
      EXPECT_EQ(status.code(), c.code) << status;
      EXPECT_TRUE(Names(status)) << status;
      EXPECT_EQ(folder_.file_count(), 0u);
    }
    // Whether it exists, new file, appends, sync, close, rename, folder, sync of the folder.
    EXPECT_GE(n, 9u);
    EXPECT_TRUE(Whole());
    EXPECT_EQ(folder_.file_count(), 1u);
    std::filesystem::remove(path_);
  }
}

TEST_F(SegmentFaults, ADiskThatFailsForGoodLeavesNoHalfFileUnderTheName) {
  size_t left = 0;
  for (size_t n = 0;; ++n) {
    SCOPED_TRACE(testing::Message() << "operation " << n);
    faulty_->FailAt(n, kForever, IOStatus::IOError("disk"));
    const absl::Status status = Write();
    if (faulty_->failures() == 0) break;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    if (std::filesystem::exists(path_)) {
      EXPECT_TRUE(Whole());
    }
    left += folder_.file_count();
    for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
      std::filesystem::remove(file);
    }
  }
  EXPECT_GT(left, 0u);  // deleting failed, too
  EXPECT_TRUE(Whole());
}

TEST_F(SegmentFaults, EveryOperationOfAReadFailsOnce) {
  faulty_->FailAt(0, 0, IOStatus::OK());
  ASSERT_TRUE(Write().ok());
  for (const bool through_cache : {false, true}) {
    size_t n = 0;
    for (;; ++n) {
      SCOPED_TRACE(testing::Message() << "operation " << n);
      faulty_->FailAt(n, 1, IOStatus::IOError("disk"));
      const absl::Status status = Read(through_cache);
      if (faulty_->failures() == 0) {
        ASSERT_TRUE(status.ok()) << status;
        break;
      }
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_TRUE(Names(status)) << status;
    }
    EXPECT_GE(n, through_cache ? 20u : 5u);
  }
}

}  // namespace
}  // namespace attic
