#include "tests/fault/fault_file_system.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>

// RocksDB forgets the new memtable when the disk fails while it starts a log.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
  return "leak:rocksdb::DBImpl::SwitchMemtable\n";
}

namespace attic {

namespace fs = std::filesystem;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

class FaultWritableFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultWritableFile(std::unique_ptr<rocksdb::FSWritableFile> target, FaultFileSystem& files,
                    std::string path, std::shared_ptr<FaultFileSystem::FileState> state)
      : FSWritableFileOwnerWrapper(std::move(target)),
        files_(files),
        path_(std::move(path)),
        state_(std::move(state)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    bool torn = false;
    std::function<void()> call;
    IOStatus status =
        files_.Begin("append", path_, FaultFileSystem::Effect::kTakesRoom, &torn, &call);
    if (status.ok()) {
      status = target()->Append(data, options, debug);
      if (status.ok()) state_->size += data.size();
      return status;
    }
    if (torn && !data.empty()) {
      const Slice part(data.data(), (files_.operations() * 2654435761u) % data.size());
      if (target()->Append(part, options, debug).ok()) state_->size += part.size();
    }
    if (call) call();
    return status;
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&,
                  IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    IOStatus status = files_.Begin("truncate", path_, FaultFileSystem::Effect::kOther);
    if (status.ok()) status = target()->Truncate(size, options, debug);
    if (status.ok()) {
      state_->size = size;
      state_->synced = std::min<uint64_t>(state_->synced, size);
    }
    return status;
  }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    const uint64_t size = state_->size;
    const IOStatus status = files_.Begin("sync", path_, FaultFileSystem::Effect::kTakesRoom);
    if (status.ok() && !files_.Skipped("sync", path_)) state_->synced = size;
    return status;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Sync(options, debug);
  }
  // A hint: nothing is safe after it.
  IOStatus RangeSync(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override {
    return files_.Begin("range-sync", path_, FaultFileSystem::Effect::kTakesRoom);
  }
  // Room ahead of what is written would hide where a file ends.
  void PrepareWrite(size_t, size_t, const IOOptions&, IODebugContext*) override {}
  IOStatus Allocate(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override {
    return IOStatus::OK();
  }

 private:
  FaultFileSystem& files_;
  const std::string path_;  // when it was opened, in names of operations
  const std::shared_ptr<FaultFileSystem::FileState> state_;
};

class FaultDirectory final : public rocksdb::FSDirectoryWrapper {
 public:
  FaultDirectory(std::unique_ptr<rocksdb::FSDirectory> target, FaultFileSystem& files,
                 std::string path)
      : FSDirectoryWrapper(std::move(target)), files_(files), path_(std::move(path)) {}

  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    const IOStatus status = files_.Begin("sync-folder", path_, FaultFileSystem::Effect::kTakesRoom);
    if (status.ok() && !files_.Skipped("sync-folder", path_)) files_.FolderSynced(path_);
    return status;
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions&) override {
    return Fsync(options, debug);
  }

 private:
  FaultFileSystem& files_;
  const std::string path_;
};

FaultFileSystem::FaultFileSystem(const std::shared_ptr<rocksdb::FileSystem>& target,
                                 std::string root, bool keep_lost)
    : FileSystemWrapper(target), root_(std::move(root)), keep_lost_(keep_lost) {}

FaultFileSystem::~FaultFileSystem() {
  std::error_code ignored;
  fs::remove_all(root_ + ".lost", ignored);
}

std::vector<std::string> FaultFileSystem::names() const {
  MutexLock lock(mutex_);
  return names_;
}

void FaultFileSystem::ForgetNames() {
  MutexLock lock(mutex_);
  names_.clear();
}

void FaultFileSystem::FailAt(uint64_t number, Fault fault) {
  MutexLock lock(mutex_);
  faults_[number] = std::move(fault);
}

void FaultFileSystem::FailWhere(
    std::function<std::optional<Fault>(const std::string& name)> where) {
  MutexLock lock(mutex_);
  where_ = std::move(where);
}

void FaultFileSystem::SkipSyncs(std::function<bool(const std::string& name)> skip) {
  MutexLock lock(mutex_);
  skip_ = std::move(skip);
}

std::string FaultFileSystem::Relative(const std::string& path) const {
  if (path == root_) return ".";
  if (path.starts_with(root_ + "/")) return path.substr(root_.size() + 1);
  return path;
}

IOStatus FaultFileSystem::Begin(const std::string& action, const std::string& path, Effect effect,
                                bool* torn, std::function<void()>* call) {
  const std::string name = action + " " + Relative(path);
  std::optional<Fault> found;
  std::function<std::optional<Fault>(const std::string&)> where;
  {
    MutexLock lock(mutex_);
    const uint64_t number = ++operations_;
    names_.push_back(name);
    if (crashed_) return IOStatus::IOError("crashed");
    if (const auto at = faults_.find(number); at != faults_.end()) {
      found = at->second;
    } else if (io_error_) {
      return IOStatus::IOError("injected");
    } else if (no_space_ && effect == Effect::kTakesRoom) {
      return IOStatus::NoSpace("injected");
    }
    where = where_;
  }
  if (!found && where) found = where(name);
  if (!found) return IOStatus::OK();
  const Fault& fault = *found;
  if (torn != nullptr) *torn = fault.torn;
  switch (fault.kind) {
    case FaultKind::kNoSpace:
      return IOStatus::NoSpace("injected");
    case FaultKind::kCrash:
      crashed_ = true;
      return IOStatus::IOError("crashed");
    case FaultKind::kCall:
      if (call != nullptr) {
        *call = fault.call;
      } else {
        fault.call();
      }
      break;
    case FaultKind::kIoError:
      break;
  }
  return IOStatus::IOError("injected");
}

bool FaultFileSystem::Skipped(const std::string& action, const std::string& path) const {
  MutexLock lock(mutex_);
  return skip_ && skip_(action + " " + Relative(path));
}

std::shared_ptr<FaultFileSystem::FileState> FaultFileSystem::StateOf(const std::string& path) {
  std::shared_ptr<FileState>& state = files_[path];
  if (state == nullptr) {
    state = std::make_shared<FileState>();
    std::error_code missing;
    const uint64_t size = fs::file_size(path, missing);
    if (!missing) state->size = state->synced = size;
  }
  return state;
}

std::string FaultFileSystem::Keep(const std::string& path) {
  if (!keep_lost_ || !fs::is_regular_file(path)) return {};
  fs::create_directories(root_ + ".lost");
  std::string kept = root_ + ".lost/" + std::to_string(++kept_);
  fs::create_hard_link(path, kept);
  return kept;
}

void FaultFileSystem::Note(FolderChange change) {
  if (keep_lost_) folders_[fs::path(change.path).parent_path()].push_back(std::move(change));
}

void FaultFileSystem::FolderSynced(const std::string& path) {
  MutexLock lock(mutex_);
  const auto folder = folders_.find(path);
  if (folder == folders_.end()) return;
  for (const FolderChange& change : folder->second) {
    if (!change.kept.empty()) fs::remove(change.kept);
  }
  folders_.erase(folder);
}

IOStatus FaultFileSystem::NewWritableFile(const std::string& path,
                                          const rocksdb::FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* file,
                                          IODebugContext* debug) {
  IOStatus status = Begin("create", path, Effect::kTakesRoom);
  if (!status.ok()) return status;
  MutexLock lock(mutex_);
  FolderChange change{.change = Change::kCreate, .path = path};
  if (fs::exists(path)) {
    // A new file of the old name, so that the old one can be kept.
    change.kept = Keep(path);
    change.kept_state = StateOf(path);
    fs::remove(path);
  }
  std::unique_ptr<rocksdb::FSWritableFile> target;
  status = FileSystemWrapper::NewWritableFile(path, options, &target, debug);
  if (!status.ok()) return status;
  files_[path] = std::make_shared<FileState>();
  Note(std::move(change));
  *file = std::make_unique<FaultWritableFile>(std::move(target), *this, path, files_[path]);
  return status;
}

IOStatus FaultFileSystem::ReopenWritableFile(const std::string& path,
                                             const rocksdb::FileOptions& options,
                                             std::unique_ptr<rocksdb::FSWritableFile>* file,
                                             IODebugContext* debug) {
  if (!fs::exists(path)) return NewWritableFile(path, options, file, debug);
  IOStatus status = Begin("reopen", path, Effect::kTakesRoom);
  if (!status.ok()) return status;
  std::unique_ptr<rocksdb::FSWritableFile> target;
  status = FileSystemWrapper::ReopenWritableFile(path, options, &target, debug);
  if (!status.ok()) return status;
  MutexLock lock(mutex_);
  *file = std::make_unique<FaultWritableFile>(std::move(target), *this, path, StateOf(path));
  return status;
}

IOStatus FaultFileSystem::ReuseWritableFile(const std::string&, const std::string&,
                                            const rocksdb::FileOptions&,
                                            std::unique_ptr<rocksdb::FSWritableFile>*,
                                            IODebugContext*) {
  return IOStatus::NotSupported("files that are used again are not followed");
}

IOStatus FaultFileSystem::NewRandomRWFile(const std::string&, const rocksdb::FileOptions&,
                                          std::unique_ptr<rocksdb::FSRandomRWFile>*,
                                          IODebugContext*) {
  return IOStatus::NotSupported("files written at random are not followed");
}

IOStatus FaultFileSystem::LinkFile(const std::string&, const std::string&, const IOOptions&,
                                   IODebugContext*) {
  return IOStatus::NotSupported("links are not followed");
}

IOStatus FaultFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* directory,
                                       IODebugContext* debug) {
  std::unique_ptr<rocksdb::FSDirectory> target;
  const IOStatus status = FileSystemWrapper::NewDirectory(path, options, &target, debug);
  if (!status.ok()) return status;
  std::string plain = path;
  while (plain.size() > 1 && plain.back() == '/') plain.pop_back();
  *directory = std::make_unique<FaultDirectory>(std::move(target), *this, std::move(plain));
  return status;
}

IOStatus FaultFileSystem::CreateDir(const std::string& path, const IOOptions& options,
                                    IODebugContext* debug) {
  IOStatus status = Begin("make-folder", path, Effect::kTakesRoom);
  if (status.ok()) status = FileSystemWrapper::CreateDir(path, options, debug);
  if (status.ok() && path != root_) {
    MutexLock lock(mutex_);
    Note({.change = Change::kCreate, .path = path});
  }
  return status;
}

IOStatus FaultFileSystem::CreateDirIfMissing(const std::string& path, const IOOptions& options,
                                             IODebugContext* debug) {
  if (fs::is_directory(path)) return IOStatus::OK();
  return CreateDir(path, options, debug);
}

IOStatus FaultFileSystem::DeleteDir(const std::string& path, const IOOptions& options,
                                    IODebugContext* debug) {
  const IOStatus status = Begin("delete-folder", path, Effect::kOther);
  return status.ok() ? FileSystemWrapper::DeleteDir(path, options, debug) : status;
}

IOStatus FaultFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                     IODebugContext* debug) {
  IOStatus status = Begin("delete", path, Effect::kOther);
  if (!status.ok()) return status;
  MutexLock lock(mutex_);
  FolderChange change{.change = Change::kDelete, .path = path, .kept = Keep(path)};
  status = FileSystemWrapper::DeleteFile(path, options, debug);
  if (!status.ok()) return status;
  change.kept_state = files_[path];
  files_.erase(path);
  Note(std::move(change));
  return status;
}

IOStatus FaultFileSystem::RenameFile(const std::string& from, const std::string& to,
                                     const IOOptions& options, IODebugContext* debug) {
  IOStatus status = Begin("rename", to, Effect::kTakesRoom);
  if (!status.ok()) return status;
  MutexLock lock(mutex_);
  FolderChange change{.change = Change::kRename, .path = to, .from = from, .kept = Keep(to)};
  if (!change.kept.empty()) change.kept_state = StateOf(to);
  std::shared_ptr<FileState> state = StateOf(from);
  status = FileSystemWrapper::RenameFile(from, to, options, debug);
  if (!status.ok()) return status;
  files_.erase(from);
  files_[to] = std::move(state);
  Note(std::move(change));
  return status;
}

IOStatus FaultFileSystem::Truncate(const std::string& path, size_t size, const IOOptions& options,
                                   IODebugContext* debug) {
  IOStatus status = Begin("truncate", path, Effect::kOther);
  if (status.ok()) status = FileSystemWrapper::Truncate(path, size, options, debug);
  if (!status.ok()) return status;
  MutexLock lock(mutex_);
  const std::shared_ptr<FileState> state = StateOf(path);
  state->size = size;
  state->synced = std::min<uint64_t>(state->synced, size);
  return status;
}

void FaultFileSystem::Undo(const FolderChange& change) {
  // A folder above may have gone already, with all that was in it.
  std::error_code gone;
  switch (change.change) {
    case Change::kCreate:
      fs::remove_all(change.path, gone);
      files_.erase(change.path);
      break;
    case Change::kRename:
      fs::rename(change.path, change.from, gone);
      files_[change.from] = files_[change.path];
      files_.erase(change.path);
      break;
    case Change::kDelete:
      break;
  }
  if (change.kept.empty()) return;
  fs::rename(change.kept, change.path, gone);
  if (change.kept_state != nullptr) files_[change.path] = change.kept_state;
}

void FaultFileSystem::LoseEnd(const std::string& path, const FileState& state, uint32_t random) {
  const uint64_t unsynced = state.size - state.synced;
  uint64_t kept = state.synced;
  // Nothing of it, all of it, or a part.
  if (random % 4 == 1) kept = state.size;
  if (random % 4 >= 2) kept += (random >> 4) % (unsynced + 1);
  fs::resize_file(path, kept);
  if (random % 4 != 3 || kept == state.synced) return;
  // A file system may have room for it already, but not the bytes.
  const uint64_t begin = kept - std::min<uint64_t>(kept - state.synced, random % 5000);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(begin));
  const std::string zeros(kept - begin, '\0');
  file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
}

void FaultFileSystem::DropUnsynced(uint32_t seed) {
  std::mt19937 random(seed);
  MutexLock lock(mutex_);
  for (auto& [folder, changes] : folders_) {
    const size_t kept = random() % (changes.size() + 1);
    while (changes.size() > kept) {
      Undo(changes.back());
      changes.pop_back();
    }
  }
  for (const auto& [path, state] : files_) {
    const uint32_t number = random();
    if (state == nullptr || state->size <= state->synced || !fs::exists(path)) continue;
    LoseEnd(path, *state, number);
  }
  folders_.clear();
  files_.clear();
  faults_.clear();
  skip_ = nullptr;
  where_ = nullptr;
  std::error_code ignored;
  fs::remove_all(root_ + ".lost", ignored);
  crashed_ = false;
  io_error_ = false;
  no_space_ = false;
}

}  // namespace attic
