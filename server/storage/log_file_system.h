// Tells when RocksDB begins to wait for the disk in a sync of its log.
//
// RocksDB ends the process (Debian's is built with assertions) when the sync of a log is begun
// after an append to it failed. So a sync is begun while nobody appends; but nobody has to wait for
// the disk with it.
#ifndef ATTIC_SERVER_STORAGE_LOG_FILE_SYSTEM_H_
#define ATTIC_SERVER_STORAGE_LOG_FILE_SYSTEM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"

namespace attic {

// As `target` is, but for logs in SyncScopes. Thread-safe.
class LogFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit LogFileSystem(const std::shared_ptr<rocksdb::FileSystem>& target)
      : FileSystemWrapper(target), newest_(std::make_shared<std::atomic<uint64_t>>(0)) {}

  // Of one thread, one at a time: when it begins to sync the log that was made last, `begun` is
  // called, at most once. RocksDB syncs that log after the others.
  class SyncScope {
   public:
    explicit SyncScope(std::function<void()> begun);
    ~SyncScope();
    SyncScope(const SyncScope&) = delete;
    SyncScope& operator=(const SyncScope&) = delete;

   private:
    std::function<void()> begun_;
  };

  const char* Name() const override { return "LogFileSystem"; }
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;

 private:
  const std::shared_ptr<std::atomic<uint64_t>> newest_;  // number of the last log; shared with logs
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_LOG_FILE_SYSTEM_H_
