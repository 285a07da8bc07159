#include "server/storage/read_only_file_system.h"

#include <string>
#include <utility>

namespace attic {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

IOStatus Refused(const std::string& name) {
  return IOStatus::NotSupported(name, "is not to be changed");
}

class ReadOnly final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "AtticReadOnly"; }

  IOStatus NewWritableFile(const std::string& name, const FileOptions&,
                           std::unique_ptr<rocksdb::FSWritableFile>*, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions&,
                              std::unique_ptr<rocksdb::FSWritableFile>*, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus ReuseWritableFile(const std::string& name, const std::string&, const FileOptions&,
                             std::unique_ptr<rocksdb::FSWritableFile>*, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus NewRandomRWFile(const std::string& name, const FileOptions&,
                           std::unique_ptr<rocksdb::FSRandomRWFile>*, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus NewMemoryMappedFileBuffer(const std::string& name,
                                     std::unique_ptr<rocksdb::MemoryMappedFileBuffer>*) override {
    return Refused(name);
  }
  IOStatus NewLogger(const std::string& name, const IOOptions&, std::shared_ptr<rocksdb::Logger>*,
                     IODebugContext*) override {
    return Refused(name);
  }
  IOStatus DeleteFile(const std::string& name, const IOOptions&, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus Truncate(const std::string& name, size_t, const IOOptions&, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus CreateDir(const std::string& name, const IOOptions&, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus CreateDirIfMissing(const std::string& name, const IOOptions&, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus DeleteDir(const std::string& name, const IOOptions&, IODebugContext*) override {
    return Refused(name);
  }
  IOStatus RenameFile(const std::string& name, const std::string&, const IOOptions&,
                      IODebugContext*) override {
    return Refused(name);
  }
  IOStatus LinkFile(const std::string& name, const std::string&, const IOOptions&,
                    IODebugContext*) override {
    return Refused(name);
  }
  IOStatus LockFile(const std::string& name, const IOOptions& options, rocksdb::FileLock** lock,
                    IODebugContext* debug) override {
    const IOStatus found = FileExists(name, options, debug);
    return found.ok() ? FileSystemWrapper::LockFile(name, options, lock, debug) : found;
  }
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> ReadOnlyFileSystem(
    std::shared_ptr<rocksdb::FileSystem> target) {
  return std::make_shared<ReadOnly>(std::move(target));
}

}  // namespace attic
