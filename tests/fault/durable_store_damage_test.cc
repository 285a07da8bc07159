// Flipped bits in any file of a directory: an error or a report, or everything is as it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "server/storage/durable_store.h"
#include "tests/fault/fault_file_system.h"
#include "tests/fault/store_content.h"
#include "tests/fault/store_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Works with a store and leaves it closed, or as a killed process leaves it.
void Fill(const std::string& directory, StoreDriver& driver, bool killed) {
  auto files = std::make_shared<FaultFileSystem>(MachineFileSystem(), directory, false);
  auto store = DurableStore::Open(SmallStore(directory, killed ? files : nullptr));
  ASSERT_TRUE(store.ok()) << store.status();
  for (int step = 0; step < 80; ++step) ASSERT_TRUE(driver.Step(**store).ok());
  ASSERT_TRUE((*store)->Sync().ok());
  if (killed) files->Crash();
}

void FlipBits(uint32_t seed, bool killed, int flips) {
  const TemporaryFolder folder;
  const std::string original = folder.file("original");
  StoreDriver driver(seed, {.piece_rows_max = 40, .large_pieces = true});
  ASSERT_NO_FATAL_FAILURE(Fill(original, driver, killed));
  const std::vector<std::string> files = FilesIn(original);
  std::mt19937 random(seed);
  int errors = 0, reports = 0;
  for (int flip = 0; flip < flips; ++flip) {
    const std::string copy = folder.file("copy");
    fs::remove_all(copy);
    fs::copy(original, copy, fs::copy_options::recursive);
    const std::string& name = files[random() % files.size()];
    const std::string path = copy + name.substr(original.size());
    std::string bytes = ReadBytes(path);
    const size_t byte = random() % bytes.size();
    bytes[byte] = static_cast<char>(bytes[byte] ^ (1 << random() % 8));
    WriteBytes(path, bytes);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", byte " + std::to_string(byte) + " of " + path);
    auto store = DurableStore::Open(SmallStore(copy));
    if (!store.ok()) {
      ++errors;
      continue;
    }
    const absl::StatusOr<std::string> found = DescribeStore(**store);
    if (!found.ok()) {
      ++errors;
      ASSERT_EQ(found.status().code(), absl::StatusCode::kDataLoss) << found.status();
      continue;
    }
    if (!(*store)->damage().empty()) {
      ++reports;
      continue;
    }
    ASSERT_EQ(*found, driver.Expected());
  }
  EXPECT_GT(errors, flips / 4);
  std::printf("%d flips: %d errors, %d reports, the others without effect\n", flips, errors,
              reports);
}

TEST(DurableStoreDamage, FlippedBitsInAClosedDirectory) {
  FlipBits(1, false, 150);
  FlipBits(2, false, 150);
}

TEST(DurableStoreDamage, FlippedBitsAfterAKill) {
  FlipBits(3, true, 150);
  FlipBits(4, true, 150);
}

// A file that is gone is damage, too.
TEST(DurableStoreDamage, MissingFiles) {
  const TemporaryFolder folder;
  const std::string original = folder.file("original");
  StoreDriver driver(5);
  ASSERT_NO_FATAL_FAILURE(Fill(original, driver, true));
  for (const std::string& name : FilesIn(original)) {
    SCOPED_TRACE(name);
    const std::string copy = folder.file("copy");
    fs::remove_all(copy);
    fs::copy(original, copy, fs::copy_options::recursive);
    fs::remove(copy + name.substr(original.size()));
    auto store = DurableStore::Open(SmallStore(copy));
    if (!store.ok()) continue;
    const absl::StatusOr<std::string> found = DescribeStore(**store);
    if (!found.ok() || !(*store)->damage().empty()) continue;
    ASSERT_EQ(*found, driver.Expected());
  }
}

}  // namespace
}  // namespace attic
