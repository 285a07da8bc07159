#include "tests/unit/storage/faulty_file_system.h"

#include <utility>

namespace attic {
namespace {

using rocksdb::FileOptions;
using rocksdb::FSDirectory;
using rocksdb::FSRandomAccessFile;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

class WritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WritableFile(std::unique_ptr<FSWritableFile> file, FaultyFileSystem& owner)
      : FSWritableFileOwnerWrapper(std::move(file)), owner_(owner) {}

  IOStatus Append(const Slice& bytes, const IOOptions& options, IODebugContext* debug) override {
    IOStatus error = owner_.Next();
    if (error.ok()) return target()->Append(bytes, options, debug);
    target()->Append(Slice(bytes.data(), bytes.size() / 2), options, debug).PermitUncheckedError();
    return error;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    IOStatus error = owner_.Next();
    return error.ok() ? target()->Sync(options, debug) : error;
  }
  IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
    IOStatus error = owner_.Next();
    IOStatus closed = target()->Close(options, debug);
    return error.ok() ? closed : error;
  }

 private:
  FaultyFileSystem& owner_;
};

class ReadableFile : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  ReadableFile(std::unique_ptr<FSRandomAccessFile> file, FaultyFileSystem& owner)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), owner_(owner) {}

  IOStatus Read(uint64_t offset, size_t count, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* debug) const override {
    IOStatus error = owner_.Next();
    return error.ok() ? target()->Read(offset, count, options, result, scratch, debug) : error;
  }

 private:
  FaultyFileSystem& owner_;
};

class Directory : public FSDirectory {
 public:
  Directory(std::unique_ptr<FSDirectory> target, FaultyFileSystem& owner)
      : target_(std::move(target)), owner_(owner) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    IOStatus error = owner_.Next();
    return error.ok() ? target_->Fsync(options, debug) : error;
  }

 private:
  const std::unique_ptr<FSDirectory> target_;
  FaultyFileSystem& owner_;
};

}  // namespace

void FaultyFileSystem::FailAt(size_t first, size_t count, IOStatus error) {
  operations_ = failures_ = 0;
  first_ = first;
  count_ = count;
  error_ = std::move(error);
}

IOStatus FaultyFileSystem::Next() {
  const size_t operation = operations_.fetch_add(1);
  if (operation < first_ || operation - first_ >= count_) return IOStatus::OK();
  ++failures_;
  return error_;
}

IOStatus FaultyFileSystem::NewRandomAccessFile(const std::string& path, const FileOptions& options,
                                               std::unique_ptr<FSRandomAccessFile>* file,
                                               IODebugContext* debug) {
  IOStatus status = Next();
  if (status.ok()) status = target()->NewRandomAccessFile(path, options, file, debug);
  if (status.ok()) *file = std::make_unique<ReadableFile>(std::move(*file), *this);
  return status;
}

IOStatus FaultyFileSystem::NewWritableFile(const std::string& path, const FileOptions& options,
                                           std::unique_ptr<FSWritableFile>* file,
                                           IODebugContext* debug) {
  IOStatus status = Next();
  if (status.ok()) status = target()->NewWritableFile(path, options, file, debug);
  if (status.ok()) *file = std::make_unique<WritableFile>(std::move(*file), *this);
  return status;
}

IOStatus FaultyFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                        std::unique_ptr<FSDirectory>* directory,
                                        IODebugContext* debug) {
  IOStatus status = Next();
  if (status.ok()) status = target()->NewDirectory(path, options, directory, debug);
  if (status.ok()) *directory = std::make_unique<Directory>(std::move(*directory), *this);
  return status;
}

IOStatus FaultyFileSystem::FileExists(const std::string& path, const IOOptions& options,
                                      IODebugContext* debug) {
  IOStatus error = Next();
  return error.ok() ? target()->FileExists(path, options, debug) : error;
}

IOStatus FaultyFileSystem::GetFileSize(const std::string& path, const IOOptions& options,
                                       uint64_t* bytes, IODebugContext* debug) {
  IOStatus error = Next();
  return error.ok() ? target()->GetFileSize(path, options, bytes, debug) : error;
}

IOStatus FaultyFileSystem::RenameFile(const std::string& from, const std::string& to,
                                      const IOOptions& options, IODebugContext* debug) {
  IOStatus error = Next();
  return error.ok() ? target()->RenameFile(from, to, options, debug) : error;
}

IOStatus FaultyFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                      IODebugContext* debug) {
  IOStatus error = Next();
  return error.ok() ? target()->DeleteFile(path, options, debug) : error;
}

}  // namespace attic
