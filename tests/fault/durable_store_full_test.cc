// A disk that is full or fails: errors, reads that go on, and writes that succeed again by
// themselves.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/storage/durable_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/store_content.h"
#include "tests/fault/store_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr int kSteps = 50;
constexpr uint32_t kSeeds = kEvery == 1 ? 20 : 6;

class FullDisk : public ::testing::Test {
 protected:
  void Start(uint32_t seed) {
    store_.reset();
    folder_ = std::make_unique<TemporaryFolder>();
    files_ = std::make_shared<FaultFileSystem>(MachineFileSystem(), path(), /*keep_lost=*/false);
    driver_ = std::make_unique<StoreDriver>(
        seed, StoreDriver::Limits{.piece_rows_max = 40, .large_pieces = true});
  }
  std::string path() const { return folder_->file("store"); }

  absl::Status Open() {
    auto store = DurableStore::Open(SmallStore(path(), files_));
    if (store.ok()) store_ = *std::move(store);
    return store.status();
  }
  // Reads everything, which must work, and compares it with the model.
  void Compare() {
    const absl::StatusOr<std::string> found = DescribeStore(*store_);
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_TRUE(driver_->Reconcile(*found)) << driver_->last_operation() << "\n"
                                            << *found << "expected:\n"
                                            << driver_->Expected();
  }
  void Reopen() {
    const std::string expected = driver_->Expected();
    store_.reset();
    // The fault may have waited for this.
    absl::Status opened = Open();
    if (!opened.ok()) opened = Open();
    ASSERT_TRUE(opened.ok()) << opened;
    const absl::StatusOr<std::string> found = DescribeStore(*store_);
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_EQ(*found, expected);
    ASSERT_TRUE(store_->damage().empty());
  }

  std::unique_ptr<TemporaryFolder> folder_;
  std::shared_ptr<FaultFileSystem> files_;
  std::unique_ptr<StoreDriver> driver_;
  std::unique_ptr<DurableStore> store_;
};

TEST_F(FullDisk, OneOperationAfterAnotherFails) {
  Start(1);
  ASSERT_TRUE(Open().ok());
  for (int step = 0; step < kSteps; ++step) ASSERT_TRUE(driver_->Step(*store_).ok());
  store_.reset();
  const uint64_t operations = files_->operations();
  int failures = 0;
  for (uint64_t operation = 1; operation <= operations; operation += kEvery) {
    const bool no_space = operation % 2 == 0;
    SCOPED_TRACE("operation " + std::to_string(operation));
    Start(1);
    files_->FailAt(operation, {.kind = no_space ? FaultKind::kNoSpace : FaultKind::kIoError,
                               .torn = operation % 4 < 2});
    if (!Open().ok()) {
      ASSERT_TRUE(Open().ok());
    }
    for (int step = 0; step < kSteps; ++step) {
      const absl::Status done = driver_->Step(*store_);
      if (done.ok()) continue;
      ++failures;
      ASSERT_EQ(done.code(),
                no_space ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable)
          << driver_->last_operation() << ": " << done;
      ASSERT_NO_FATAL_FAILURE(Compare());
    }
    ASSERT_NO_FATAL_FAILURE(Compare());
    ASSERT_NO_FATAL_FAILURE(Reopen());
  }
  // Most errors pass unseen, because what failed is done again.
  EXPECT_GT(failures, kEvery == 1 ? 5 : 0);
}

TEST_F(FullDisk, WritesFailAndReadsGoOnUntilThereIsRoom) {
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    Start(seed);
    ASSERT_TRUE(Open().ok());
    for (int round = 0; round < 3; ++round) {
      for (int step = 0; step < 20; ++step) ASSERT_TRUE(driver_->Step(*store_).ok());
      const bool no_space = (seed + round) % 2 == 0;
      no_space ? files_->SetNoSpace(true) : files_->SetIoError(true);
      int failures = 0;
      for (int step = 0; step < 8; ++step) {
        const absl::Status done = driver_->Step(*store_);
        if (done.ok()) continue;  // nothing was to be written
        ++failures;
        ASSERT_EQ(done.code(),
                  no_space ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable)
            << driver_->last_operation() << ": " << done;
        ASSERT_NO_FATAL_FAILURE(Compare());
      }
      ASSERT_GT(failures, 0);
      files_->SetNoSpace(false);
      files_->SetIoError(false);
    }
    ASSERT_TRUE(store_->Sync().ok());
    ASSERT_NO_FATAL_FAILURE(Compare());
    ASSERT_NO_FATAL_FAILURE(Reopen());
  }
}

}  // namespace
}  // namespace attic
