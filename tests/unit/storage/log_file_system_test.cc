#include "server/storage/log_file_system.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "tests/support/temporary_folder.h"
#include "tests/unit/storage/sample_segment.h"

namespace attic {
namespace {

class LogFileSystemTest : public ::testing::Test {
 protected:
  std::unique_ptr<rocksdb::FSWritableFile> Create(const std::string& name) {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    EXPECT_TRUE(
        files_.NewWritableFile(folder_.file(name), rocksdb::FileOptions(), &file, nullptr).ok());
    return file;
  }
  static void Sync(rocksdb::FSWritableFile& file) {
    EXPECT_TRUE(file.Sync(rocksdb::IOOptions(), nullptr).ok());
  }

  const TemporaryFolder folder_;
  LogFileSystem files_{MachineFileSystem()};
};

TEST_F(LogFileSystemTest, TheSyncOfTheNewestLogIsTold) {
  const auto older = Create("000004.log");
  const auto newest = Create("000007.log");
  const auto table = Create("000009.sst");
  int begun = 0;
  {
    const LogFileSystem::SyncScope scope([&begun] { ++begun; });
    Sync(*older);
    Sync(*table);
    EXPECT_EQ(begun, 0);
    std::thread([&newest] { Sync(*newest); }).join();
    EXPECT_EQ(begun, 0) << "another thread is in no scope";
    Sync(*newest);
    EXPECT_EQ(begun, 1);
    EXPECT_TRUE(newest->Fsync(rocksdb::IOOptions(), nullptr).ok());
    EXPECT_EQ(begun, 1) << "at most once";
  }
  Sync(*newest);
  EXPECT_EQ(begun, 1) << "the scope has ended";
  const LogFileSystem::SyncScope scope([&begun] { ++begun; });
  EXPECT_TRUE(newest->Fsync(rocksdb::IOOptions(), nullptr).ok());
  EXPECT_EQ(begun, 2);
}

TEST_F(LogFileSystemTest, ItIsToldBeforeTheDiskIsWaitedFor) {
  const auto log = Create("000004.log");
  EXPECT_TRUE(log->Append("bytes", rocksdb::IOOptions(), nullptr).ok());
  {
    const LogFileSystem::SyncScope scope([&] {
      // Others may append meanwhile.
      EXPECT_TRUE(log->Append(" more", rocksdb::IOOptions(), nullptr).ok());
    });
    Sync(*log);
  }
  EXPECT_EQ(ReadBytes(folder_.file("000004.log")), "bytes more");
}

}  // namespace
}  // namespace attic
