// A file system in which operations fail when a test says so.
#ifndef ATTIC_TESTS_UNIT_STORAGE_FAULTY_FILE_SYSTEM_H_
#define ATTIC_TESTS_UNIT_STORAGE_FAULTY_FILE_SYSTEM_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"

namespace attic {

// Counts operations on folders and on files, written and read; from the `first`'th on `count` of
// them fail with `error`, in the order in which they are made. An append that fails has written
// half of its bytes.
class FaultyFileSystem : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultyFileSystem(const std::shared_ptr<rocksdb::FileSystem>& target)
      : FileSystemWrapper(target) {}
  const char* Name() const override { return "FaultyFileSystem"; }

  void FailAt(size_t first, size_t count, rocksdb::IOStatus error);
  size_t operations() const { return operations_; }
  size_t failures() const { return failures_; }

  // The error that the next operation gets; OK for most.
  rocksdb::IOStatus Next();

  rocksdb::IOStatus NewRandomAccessFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus FileExists(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetFileSize(const std::string& path, const rocksdb::IOOptions& options,
                                uint64_t* bytes, rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;

 private:
  std::atomic<size_t> operations_{0}, failures_{0};
  size_t first_ = 0, count_ = 0;
  rocksdb::IOStatus error_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_STORAGE_FAULTY_FILE_SYSTEM_H_
