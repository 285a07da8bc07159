// Loss of power at any operation on the disk, and what was not synced with it: what sessions had
// acknowledged as durable is there afterwards, and nothing that was not sent.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/session_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/session_oracle.h"
#include "tests/fault/session_workload.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr int kSeeds = 300;
constexpr int kSteps = 60;
constexpr uint64_t kOperationsMax = 900;  // about as many as so many steps take
constexpr int kSkipSeeds = 20;

// A directory that loses what was not synced, and what it must hold.
class CrashRun {
 public:
  explicit CrashRun(uint64_t seed) : random_(seed) {}

  FaultFileSystem& files() { return *files_; }
  const SessionOracle& oracle() const { return oracle_; }

  // Opens a store and works on it, until the disk is gone at the given operation from now, or until
  // there were enough steps. Then the store ends without being able to write any more. What the
  // store said that it should not have.
  std::string Work(uint64_t crash_at) {
    files_->FailAt(files_->operations() + crash_at,
                   {.kind = FaultKind::kCrash, .torn = random_() % 2 == 0});
    std::string wrong;
    auto store = SessionStore::Open(FaultOptions(directory_, files_));
    if (!store.ok() && !files_->crashed()) wrong = "open: " + store.status().ToString();
    if (store.ok()) wrong = Steps(**store);
    files_->Crash();
    return wrong;
  }

  // Loses what was not synced, and opens again. What is wrong; empty if nothing is.
  std::string Check() {
    files_->DropUnsynced(static_cast<uint32_t>(random_()));
    auto store = SessionStore::Open(FaultOptions(directory_, files_));
    if (!store.ok()) return "open: " + store.status().ToString();
    return oracle_.Check(**store, random_());
  }

 private:
  std::string Steps(SessionStore& store) {
    absl::Status done = store.WaitForBuilds(absl::Now() + absl::Seconds(60));
    Workload workload(random_(), next_id_, store, oracle_);
    for (int step = 0; step < kSteps && done.ok() && !files_->crashed(); ++step) {
      done = workload.Step();
    }
    next_id_ = workload.next_id();
    return done.ok() || files_->crashed() ? "" : "step: " + done.ToString();
  }

  std::mt19937_64 random_;
  const TemporaryFolder folder_;
  const std::string directory_ = folder_.file("store");
  const std::shared_ptr<FaultFileSystem> files_ =
      std::make_shared<FaultFileSystem>(MachineFileSystem(), directory_);
  SessionOracle oracle_;
  int next_id_ = 1;
};

// ATTIC_TEST_SEED=n runs that seed alone.
std::pair<uint64_t, uint64_t> Seeds(uint64_t first, uint64_t count) {
  const char* given = std::getenv("ATTIC_TEST_SEED");
  if (given == nullptr) return {first, first + count};
  return {std::stoull(given), std::stoull(given) + 1};
}

TEST(SessionCrash, NothingDurableIsLostAndNothingInvented) {
  const auto [first, last] = Seeds(1, kSeeds);
  uint64_t tokens = 0, answers = 0, crashes = 0;
  for (uint64_t seed = first; seed < last && !HasFatalFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("ATTIC_TEST_SEED=", seed));
    CrashRun run(seed);
    std::mt19937_64 random(seed);
    // The second time what was recovered is worked with, and lost again.
    for (int life = 0; life < 2; ++life) {
      const bool early = random() % 4 == 0;  // while it is opened
      ASSERT_EQ(run.Work(1 + random() % (early ? 60 : kOperationsMax)), "") << "life " << life;
      ASSERT_EQ(run.Check(), "") << "life " << life;
      ++crashes;
    }
    tokens += run.oracle().tokens_checked();
    answers += run.oracle().answers_checked();
  }
  std::cout << crashes << " crashes, " << tokens << " tokens and " << answers
            << " answers compared" << std::endl;
}

// The check itself is checked: were one of the syncs not there, it would say so.
void ExpectLosses(const std::function<bool(const std::string&)>& skip) {
  int losses = 0;
  std::string example;
  for (uint64_t seed = 1000; seed < 1000 + kSkipSeeds; ++seed) {
    CrashRun run(seed);
    run.files().SkipSyncs(skip);
    std::mt19937_64 random(seed);
    ASSERT_EQ(run.Work(200 + random() % kOperationsMax), "") << "seed " << seed;
    const std::string wrong = run.Check();
    if (wrong.empty()) continue;
    ++losses;
    if (example.empty()) example = absl::StrCat("seed ", seed, ": ", wrong);
  }
  EXPECT_GE(losses, 1) << "of " << kSkipSeeds;
  std::cout << losses << " losses found in " << kSkipSeeds << " runs; " << example << std::endl;
}

TEST(SessionCrash, SkippedSyncsOfTheLogAreFound) {
  ExpectLosses([](const std::string& name) {
    return absl::StartsWith(name, "sync records/") && absl::EndsWith(name, ".log");
  });
}

TEST(SessionCrash, SkippedSyncsOfSegmentFilesAreFound) {
  ExpectLosses([](const std::string& name) { return absl::StartsWith(name, "sync segments/"); });
}

TEST(SessionCrash, SkippedSyncsOfTheFolderOfSegmentsAreFound) {
  ExpectLosses([](const std::string& name) { return name == "sync-folder segments"; });
}

}  // namespace
}  // namespace attic
