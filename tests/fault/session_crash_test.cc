// Loss of power at any operation on the disk, and what was not synced with it: what sessions had
// acknowledged as durable is there afterwards, and nothing that was not sent.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "rocksdb/env.h"
#include "server/session/session_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/session_oracle.h"
#include "tests/fault/session_workload.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int kSeeds = 60;
#else
constexpr int kSeeds = 300;
#endif
constexpr int kSteps = 60;
constexpr uint64_t kOperationsMax = 900;  // about as many as so many steps take
constexpr int kSkipSeeds = 20;
constexpr int kRunsAtOnce = 6;

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

// Of runs of many seeds.
struct Tally {
  int runs = 0;
  int wrong = 0;
  uint64_t tokens = 0;
  uint64_t answers = 0;
  std::string example;  // of what was wrong
};

// Several runs at once: most of the time of one goes into RocksDB's waiting for a second whenever a
// flush fails. `run` returns what is wrong.
Tally RunSeeds(std::pair<uint64_t, uint64_t> seeds,
               const std::function<std::string(uint64_t seed, CrashRun& run)>& run) {
  for (const auto priority : {rocksdb::Env::Priority::HIGH, rocksdb::Env::Priority::LOW}) {
    rocksdb::Env::Default()->SetBackgroundThreads(2 * kRunsAtOnce, priority);
  }
  Mutex mutex;
  Tally tally;
  uint64_t next = seeds.first;
  const auto work = [&] {
    for (;;) {
      uint64_t seed;
      {
        MutexLock lock(mutex);
        if (next == seeds.second) return;
        seed = next++;
      }
      CrashRun one(seed);
      const std::string wrong = run(seed, one);
      MutexLock lock(mutex);
      ++tally.runs;
      tally.wrong += !wrong.empty();
      if (tally.example.empty() && !wrong.empty()) {
        tally.example = absl::StrCat("ATTIC_TEST_SEED=", seed, ": ", wrong);
      }
      tally.tokens += one.oracle().tokens_checked();
      tally.answers += one.oracle().answers_checked();
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kRunsAtOnce; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return tally;
}

TEST(SessionCrash, NothingDurableIsLostAndNothingInvented) {
  const Tally tally = RunSeeds(Seeds(1, kSeeds), [](uint64_t seed, CrashRun& run) -> std::string {
    std::mt19937_64 random(seed);
    // The second time what was recovered is worked with, and lost again.
    for (int life = 0; life < 2; ++life) {
      const bool early = random() % 4 == 0;  // while it is opened
      std::string wrong = run.Work(1 + random() % (early ? 60 : kOperationsMax));
      if (wrong.empty()) wrong = run.Check();
      if (!wrong.empty()) return absl::StrCat("life ", life, ": ", wrong);
    }
    return {};
  });
  EXPECT_EQ(tally.wrong, 0) << tally.example;
  std::cout << tally.runs << " runs of two crashes, " << tally.tokens << " tokens and "
            << tally.answers << " answers compared" << std::endl;
}

// The check itself is checked: were one of the syncs not there, it would say so.
void ExpectLosses(const std::function<bool(const std::string&)>& skip) {
  const Tally tally =
      RunSeeds(Seeds(1000, kSkipSeeds), [&](uint64_t seed, CrashRun& run) -> std::string {
        run.files().SkipSyncs(skip);
        std::mt19937_64 random(seed);
        const std::string wrong = run.Work(200 + random() % kOperationsMax);
        EXPECT_EQ(wrong, "") << "ATTIC_TEST_SEED=" << seed;
        return run.Check();
      });
  EXPECT_GE(tally.wrong, 1);
  std::cout << tally.wrong << " losses found in " << tally.runs << " runs; " << tally.example
            << std::endl;
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
