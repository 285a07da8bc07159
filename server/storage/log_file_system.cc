#include "server/storage/log_file_system.h"

#include <utility>

#include "base/check.h"

namespace attic {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

// Of the scope that this thread is in; null: none, or it was called already.
thread_local std::function<void()>* sync_begun = nullptr;

class LogFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  LogFile(std::unique_ptr<rocksdb::FSWritableFile> target, uint64_t number,
          std::shared_ptr<const std::atomic<uint64_t>> newest)
      : FSWritableFileOwnerWrapper(std::move(target)),
        number_(number),
        newest_(std::move(newest)) {}

  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    Begin();
    return target()->Sync(options, debug);
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    Begin();
    return target()->Fsync(options, debug);
  }

 private:
  void Begin() {
    if (number_ != newest_->load(std::memory_order_acquire)) return;
    if (auto* begun = std::exchange(sync_begun, nullptr)) (*begun)();
  }

  const uint64_t number_;
  const std::shared_ptr<const std::atomic<uint64_t>> newest_;
};

}  // namespace

LogFileSystem::SyncScope::SyncScope(std::function<void()> begun) : begun_(std::move(begun)) {
  ATTIC_CHECK(sync_begun == nullptr);
  sync_begun = &begun_;
}

LogFileSystem::SyncScope::~SyncScope() { sync_begun = nullptr; }

IOStatus LogFileSystem::NewWritableFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSWritableFile>* file,
                                        IODebugContext* debug) {
  const IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
  if (!status.ok() || !path.ends_with(".log")) return status;
  const uint64_t number = newest_->fetch_add(1, std::memory_order_acq_rel) + 1;
  *file = std::make_unique<LogFile>(std::move(*file), number, newest_);
  return status;
}

}  // namespace attic
