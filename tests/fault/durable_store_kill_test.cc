// kill -9 at some operations on the disk, and two processes on one directory.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include "base/check.h"
#include "server/storage/durable_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/store_content.h"
#include "tests/fault/store_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

constexpr int kSteps = 60;

// How far a child came, seen by its parent.
struct Progress {
  std::atomic<int> steps{0};  // finished
  std::atomic<uint64_t> operations{0};
};

// Runs the test `name` of this program in a new process, with what it is to know in its
// environment; how it ended.
int StatusOfChild(const std::string& name, const std::map<std::string, std::string>& environment) {
  const pid_t child = fork();
  if (child == 0) {
    for (const auto& [key, value] : environment) setenv(key.c_str(), value.c_str(), 1);
    const std::string filter = "--gtest_filter=" + name;
    execl("/proc/self/exe", "child", filter.c_str(), "--gtest_also_run_disabled_tests", nullptr);
    _exit(127);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

std::string FromParent(const char* key) {
  const char* value = getenv(key);
  return value == nullptr ? "" : value;
}

StoreDriver DriverOf(uint32_t seed) {
  return StoreDriver(seed, {.piece_rows_max = 40, .large_pieces = seed % 2 == 0});
}

void Work(const std::string& directory, uint32_t seed, uint64_t kill_at, Progress& progress) {
  auto files = std::make_shared<FaultFileSystem>(MachineFileSystem(), directory, false);
  files->FailAt(kill_at, {.kind = FaultKind::kCall, .torn = true, .call = [] { raise(SIGKILL); }});
  auto store = DurableStore::Open(SmallStore(directory, files));
  if (!store.ok()) _exit(2);
  StoreDriver driver = DriverOf(seed);
  for (int step = 0; step < kSteps; ++step) {
    if (!driver.Step(**store).ok()) _exit(3);
    progress.steps = step + 1;
  }
  progress.operations = files->operations();
}

// Memory that a parent and its child see.
Progress* Shared(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  ATTIC_CHECK(file >= 0 && ftruncate(file, sizeof(Progress)) == 0);
  void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  ATTIC_CHECK(memory != MAP_FAILED);
  return static_cast<Progress*>(memory);
}

// Not a test: what the child does.
TEST(DurableStoreKill, DISABLED_Work) {
  const std::string folder = FromParent("ATTIC_FOLDER");
  if (folder.empty()) GTEST_SKIP();
  Work(folder + "/store", static_cast<uint32_t>(std::stoul(FromParent("ATTIC_SEED"))),
       std::stoul(FromParent("ATTIC_KILL_AT")), *Shared(folder + "/progress"));
}

int RunWork(const TemporaryFolder& folder, uint32_t seed, uint64_t kill_at) {
  return StatusOfChild("DurableStoreKill.DISABLED_Work",
                       {{"ATTIC_FOLDER", folder.path()},
                        {"ATTIC_SEED", std::to_string(seed)},
                        {"ATTIC_KILL_AT", std::to_string(kill_at)}});
}

// The states of the model alone: the operations of a driver follow from its seed.
void Replay(StoreDriver& driver, int steps) {
  const TemporaryFolder folder;
  auto store = DurableStore::Open(SmallStore(folder.file("replay")));
  ASSERT_TRUE(store.ok());
  for (int step = 0; step < steps; ++step) ASSERT_TRUE(driver.Step(**store).ok());
}

TEST(DurableStoreKill, AtSomeOperations) {
  int kills = 0;
  for (uint32_t seed = 1; seed <= 2; ++seed) {
    const TemporaryFolder whole;
    ASSERT_EQ(RunWork(whole, seed, 0), 0);
    const uint64_t operations = Shared(whole.file("progress"))->operations;
    ASSERT_GT(operations, 100u);
    for (uint64_t number = 1; number <= 16; ++number) {
      const uint64_t kill_at = 1 + number * operations / 17;
      SCOPED_TRACE("seed " + std::to_string(seed) + ", operation " + std::to_string(kill_at));
      const TemporaryFolder folder;
      const int status = RunWork(folder, seed, kill_at);
      const Progress& progress = *Shared(folder.file("progress"));
      // Threads of RocksDB make the number of operations differ a little from run to run.
      if (status == 0 && progress.operations < kill_at) continue;
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
      ++kills;
      const int steps = progress.steps;
      // The kernel survived: all that was written is there, synced or not. The step under way may
      // have been done.
      StoreDriver before = DriverOf(seed), after = DriverOf(seed);
      ASSERT_NO_FATAL_FAILURE(Replay(before, steps));
      ASSERT_NO_FATAL_FAILURE(Replay(after, steps + 1));
      auto store = DurableStore::Open(SmallStore(folder.file("store")));
      ASSERT_TRUE(store.ok()) << store.status();
      EXPECT_TRUE((*store)->damage().empty());
      const absl::StatusOr<std::string> found = DescribeStore(**store);
      ASSERT_TRUE(found.ok()) << found.status();
      ASSERT_TRUE(*found == before.Expected() || *found == after.Expected())
          << *found << "expected:\n"
          << before.Expected();
    }
  }
  EXPECT_GE(kills, 28) << "of 32";
}

// Not a test: ends with 0 if it is refused.
TEST(DurableStoreKill, DISABLED_Second) {
  const std::string folder = FromParent("ATTIC_FOLDER");
  if (folder.empty()) GTEST_SKIP();
  const absl::Status status = DurableStore::Open(SmallStore(folder + "/store")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(folder + "/store"));
}

TEST(DurableStoreKill, AnotherProcessIsRefused) {
  const TemporaryFolder folder;
  auto store = DurableStore::Open(SmallStore(folder.file("store")));
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(StatusOfChild("DurableStoreKill.DISABLED_Second", {{"ATTIC_FOLDER", folder.path()}}),
            0);
  // Not by this process either.
  EXPECT_EQ(DurableStore::Open(SmallStore(folder.file("store"))).status().code(),
            absl::StatusCode::kFailedPrecondition);
  store->reset();
  EXPECT_TRUE(DurableStore::Open(SmallStore(folder.file("store"))).ok());
}

}  // namespace
}  // namespace attic
