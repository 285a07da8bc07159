// A file system for tests: it counts what is done to a folder, fails, stops the process, or loses
// what was not synced, as a machine does that loses its power.
#ifndef ATTIC_TESTS_FAULT_FAULT_FILE_SYSTEM_H_
#define ATTIC_TESTS_FAULT_FAULT_FILE_SYSTEM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "rocksdb/file_system.h"

namespace attic {

enum class FaultKind : uint8_t {
  kIoError,  // this operation fails
  kNoSpace,  // this operation fails
  kCrash,    // this operation and all that follow fail, until DropUnsynced
  kCall,     // a function is called, then the operation fails; such a function ends the process
};

struct Fault {
  FaultKind kind = FaultKind::kIoError;
  bool torn = false;  // an append leaves a part of its bytes
  std::function<void()> call = nullptr;
};

// Real files below `root`, by way of `target`. Everything that changes something below the root is
// an operation with a number, from 1 on, and a name: what is done and to which file, relative to
// the root, as in "append records/000004.log" or "sync-folder segments". Thread-safe but for
// DropUnsynced. A sync only notes what it covers: it does not reach the disk.
class FaultFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  // With `keep_lost`, what is deleted or replaced stays in root + ".lost" until its folder is
  // synced, which DropUnsynced needs.
  FaultFileSystem(const std::shared_ptr<rocksdb::FileSystem>& target, std::string root,
                  bool keep_lost = true);
  ~FaultFileSystem() override;
  const char* Name() const override { return "FaultFileSystem"; }

  uint64_t operations() const { return operations_.load(); }
  // Of all operations so far.
  std::vector<std::string> names() const;
  void ForgetNames();

  // At operation `number`, counted as operations() does.
  void FailAt(uint64_t number, Fault fault);
  // Asked at every operation that would not fail otherwise, by the thread that is about to do it;
  // several at once. Until DropUnsynced.
  void FailWhere(std::function<std::optional<Fault>(const std::string& name)> where);
  // Every operation that takes room fails, until told otherwise.
  void SetNoSpace(bool no_space) { no_space_.store(no_space); }
  // Every operation that writes fails, until told otherwise.
  void SetIoError(bool io_error) { io_error_.store(io_error); }
  // Syncs for which this is true return OK and do nothing.
  void SkipSyncs(std::function<bool(const std::string& name)> skip);
  void Crash() { crashed_.store(true); }
  bool crashed() const { return crashed_.load(); }

  // Loses what was not synced, at random: of what was done to the names in a folder since its last
  // sync the last operations, how many differs from folder to folder, as with a file system whose
  // journal has an order; of every file some of the end that was appended since its last sync, and
  // sometimes there are zeros instead. Nothing may be open. Faults and crash end.
  void DropUnsynced(uint32_t seed);

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus ReuseWritableFile(const std::string&, const std::string&,
                                      const rocksdb::FileOptions&,
                                      std::unique_ptr<rocksdb::FSWritableFile>*,
                                      rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string&, const rocksdb::FileOptions&,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>*,
                                    rocksdb::IODebugContext*) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus CreateDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus CreateDirIfMissing(const std::string& path, const rocksdb::IOOptions& options,
                                       rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteDir(const std::string& path, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus LinkFile(const std::string&, const std::string&, const rocksdb::IOOptions&,
                             rocksdb::IODebugContext*) override;
  rocksdb::IOStatus Truncate(const std::string& path, size_t size,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override;

 private:
  friend class FaultWritableFile;
  friend class FaultDirectory;

  struct FileState {
    std::atomic<uint64_t> size{0};
    std::atomic<uint64_t> synced{0};
  };
  enum class Change : uint8_t { kCreate, kDelete, kRename };
  // Something done to the names of a folder since its last sync.
  struct FolderChange {
    Change change;
    std::string path;  // after it
    std::string from;  // of a rename
    std::string kept;  // where the file is that was deleted or replaced; empty: there was none
    std::shared_ptr<FileState> kept_state;
  };
  enum class Effect : uint8_t { kTakesRoom, kOther };

  // Counts an operation; what it is to do instead of its work, if it is to fail. `torn` is set
  // where a part of it is to be done first.
  rocksdb::IOStatus Begin(const std::string& action, const std::string& path, Effect effect,
                          bool* torn = nullptr, std::function<void()>* call = nullptr);
  bool Skipped(const std::string& action, const std::string& path) const;
  std::string Relative(const std::string& path) const;
  // Keeps a file before it loses its name; where it is kept.
  std::string Keep(const std::string& path) ATTIC_REQUIRES(mutex_);
  void Note(FolderChange change) ATTIC_REQUIRES(mutex_);
  void Undo(const FolderChange& change) ATTIC_REQUIRES(mutex_);
  void LoseEnd(const std::string& path, const FileState& state, uint32_t random);
  void FolderSynced(const std::string& path);
  std::shared_ptr<FileState> StateOf(const std::string& path) ATTIC_REQUIRES(mutex_);

  const std::string root_;
  const bool keep_lost_;
  std::atomic<uint64_t> operations_{0};
  std::atomic<bool> no_space_{false};
  std::atomic<bool> io_error_{false};
  std::atomic<bool> crashed_{false};

  mutable Mutex mutex_;
  std::vector<std::string> names_ ATTIC_GUARDED_BY(mutex_);
  std::map<uint64_t, Fault> faults_ ATTIC_GUARDED_BY(mutex_);
  std::function<std::optional<Fault>(const std::string&)> where_ ATTIC_GUARDED_BY(mutex_);
  std::function<bool(const std::string&)> skip_ ATTIC_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<FileState>> files_ ATTIC_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<FolderChange>> folders_ ATTIC_GUARDED_BY(mutex_);
  uint64_t kept_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_TESTS_FAULT_FAULT_FILE_SYSTEM_H_
