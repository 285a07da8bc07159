// Loss of power at any operation on the disk: what was durable is there, in order, and nothing that
// was not written.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "server/storage/durable_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/store_content.h"
#include "tests/fault/store_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr int kSteps = 60;
constexpr uint32_t kSeedsEnd = kEvery == 1 ? 32 : 8;

// A folder, a store in it that loses what it did not sync, and the model it is compared with.
class CrashRun {
 public:
  explicit CrashRun(uint32_t seed)
      : files_(std::make_shared<FaultFileSystem>(MachineFileSystem(), folder_.file("store"))),
        driver_(seed, {.piece_rows_max = 40, .large_pieces = seed % 2 == 0}) {}

  FaultFileSystem& files() { return *files_; }

  // Does operations until `steps` or a crash. The store is closed then, without being able to write
  // any more.
  void Work(int steps) {
    auto store = DurableStore::Open(SmallStore(folder_.file("store"), files_));
    if (store.ok()) {
      for (int step = 0; step < steps; ++step) {
        const absl::Status done = driver_.Step(**store);
        if (files_->crashed()) break;
        ASSERT_TRUE(done.ok()) << driver_.last_operation() << ": " << done;
      }
      durable_write_ = std::max(durable_write_, (*store)->durable_write());
    } else {
      ASSERT_TRUE(files_->crashed()) << store.status();
    }
    files_->Crash();
  }

  // Opens again after the loss of what was not synced. What is wrong; empty if nothing is.
  std::string Check(uint32_t drop_seed) {
    files_->DropUnsynced(drop_seed);
    auto store = DurableStore::Open(SmallStore(folder_.file("store"), files_));
    if (!store.ok()) return "open: " + store.status().ToString();
    const absl::StatusOr<std::string> found = DescribeStore(**store);
    if (!found.ok()) return "read: " + found.status().ToString();
    if (!(*store)->damage().empty()) return "damage: " + (*store)->damage()[0].what;
    if (driver_.Resume(*found, durable_write_)) {
      durable_write_ = (*store)->durable_write();
      return {};
    }
    return "lost or invented:\n" + *found + driver_.History(*found, durable_write_);
  }

  // How many operations a run without faults takes.
  static uint64_t Operations(uint32_t seed) {
    CrashRun run(seed);
    run.Work(kSteps);
    return run.files_->operations();
  }

 private:
  TemporaryFolder folder_;
  const std::shared_ptr<FaultFileSystem> files_;
  StoreDriver driver_;
  uint64_t durable_write_ = 0;
};

void CrashAt(uint32_t seed, uint64_t operation) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", operation " + std::to_string(operation));
  CrashRun run(seed);
  run.files().FailAt(operation, {.kind = FaultKind::kCrash, .torn = operation % 2 == 0});
  run.Work(kSteps);
  ASSERT_EQ(run.Check(seed * 1000 + static_cast<uint32_t>(operation)), "");
  // What was recovered can be worked with, and lost again.
  run.Work(10);
  ASSERT_EQ(run.Check(seed), "");
}

TEST(DurableStoreCrash, AtEveryOperation) {
  const uint64_t operations = CrashRun::Operations(1);
  ASSERT_GT(operations, 100u);
  for (uint64_t operation = 1; operation <= operations && !::testing::Test::HasFatalFailure();
       operation += kEvery) {
    CrashAt(1, operation);
  }
}

TEST(DurableStoreCrash, AtRandomOperationsOfManyRuns) {
  for (uint32_t seed = 2; seed < kSeedsEnd && !::testing::Test::HasFatalFailure(); ++seed) {
    const uint64_t operations = CrashRun::Operations(seed);
    std::mt19937 random(seed);
    for (int run = 0; run < 10 && !::testing::Test::HasFatalFailure(); ++run) {
      CrashAt(seed, 1 + random() % operations);
    }
  }
}

TEST(DurableStoreCrash, WithoutACrashNothingIsLostThatWasSynced) {
  for (uint32_t seed = 100; seed < 130; ++seed) {
    SCOPED_TRACE(seed);
    CrashRun run(seed);
    run.Work(kSteps);
    ASSERT_EQ(run.Check(seed), "");
  }
}

// How many of some runs are found to have lost something when syncs do nothing.
int LossesFound(const std::function<bool(const std::string&)>& skip, std::string* example) {
  int losses = 0;
  for (uint32_t seed = 200; seed < 220; ++seed) {
    CrashRun run(seed);
    run.files().SkipSyncs(skip);
    run.Work(kSteps);
    const std::string wrong = run.Check(seed);
    if (!wrong.empty()) *example = wrong;
    losses += !wrong.empty();
  }
  return losses;
}

// The check itself is checked: were the log not synced, it would say so.
TEST(DurableStoreCrash, SkippedSyncsOfTheLogAreFound) {
  std::string example;
  const int losses = LossesFound(
      [](const std::string& name) {
        return absl::StartsWith(name, "sync records/") && absl::EndsWith(name, ".log");
      },
      &example);
  EXPECT_GE(losses, 5) << "of 20";
}

TEST(DurableStoreCrash, SkippedSyncsOfSegmentFilesAreFound) {
  std::string example;
  const int losses = LossesFound(
      [](const std::string& name) { return absl::StartsWith(name, "sync segments/"); }, &example);
  EXPECT_GE(losses, 5) << "of 20";
}

TEST(DurableStoreCrash, SkippedSyncsOfTheFolderOfSegmentsAreFound) {
  std::string example;
  const int losses =
      LossesFound([](const std::string& name) { return name == "sync-folder segments"; }, &example);
  EXPECT_GE(losses, 5) << "of 20";
}

}  // namespace
}  // namespace attic
