// The segment files of a data directory: who needs which, and when one may go.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_REGISTRY_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "rocksdb/file_system.h"

namespace attic {

// A file goes when no record refers to it, in memory or durably, and nobody holds it. Thread-safe.
class SegmentRegistry : public std::enable_shared_from_this<SegmentRegistry> {
 public:
  // Keeps a file where it is, for as long as it is held. May outlive all else.
  class Hold;

  // What records say of a file.
  struct File {
    uint64_t references = 0;
    uint64_t identity = 0;
  };

  SegmentRegistry(std::shared_ptr<rocksdb::FileSystem> file_system, std::string folder);

  // The number in names such as 000000000000001f.seg, and of what is written under such a name with
  // more behind it, which sets `unfinished`; nothing for other names.
  static std::optional<uint64_t> NumberOf(const std::string& name, bool* unfinished);

  // To be called first. Deletes files that no record refers to, and what writing left unfinished,
  // if `delete_orphans`. Numbers up to `number_max` were given to files before. Returns the numbers
  // of files that are referred to and missing.
  absl::StatusOr<std::vector<uint64_t>> Load(const std::map<uint64_t, File>& files,
                                             uint64_t number_max, bool delete_orphans);

  // The path of a file; it does not say that there is one.
  std::string Path(uint64_t number) const;

  // A number that no file ever had. The file is held and has no references.
  std::shared_ptr<Hold> Add();
  // Sets what is known once it was written.
  void Written(uint64_t number, uint64_t file_bytes, uint64_t identity);
  // Null if there is no such file.
  std::shared_ptr<Hold> Find(uint64_t number);
  // 0 if there is none, or if it is not known.
  uint64_t Identity(uint64_t number) const;

  // A record is about to refer to the file. False if there is none.
  bool AddReference(uint64_t number);
  // A record ceased to refer to the file; that is durable once the write `write` is.
  void DropReference(uint64_t number, uint64_t write);
  // Deletes the files that may go. `durable_write` is durable.
  void Sweep(uint64_t durable_write);

  // Called, with a lock held, when a hold ended and there may be something to sweep.
  void SetWakeUp(std::function<void()> wake_up);
  // Files that are released later stay, for the next Load to delete.
  void Close();

  uint64_t disk_bytes() const;
  uint64_t number_max() const;

 private:
  struct Entry {
    uint64_t references = 0;
    uint64_t holds = 0;
    uint64_t dropped_by = 0;  // the last write that dropped a reference
    uint64_t file_bytes = 0;
    uint64_t identity = 0;
  };

  void Release(uint64_t number);
  std::shared_ptr<Hold> MakeHold(uint64_t number) ATTIC_REQUIRES(mutex_);

  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::string folder_;

  mutable Mutex mutex_;
  std::map<uint64_t, Entry> entries_ ATTIC_GUARDED_BY(mutex_);
  std::set<uint64_t> unneeded_ ATTIC_GUARDED_BY(mutex_);  // without references and holds
  uint64_t number_max_ ATTIC_GUARDED_BY(mutex_) = 0;
  uint64_t disk_bytes_ ATTIC_GUARDED_BY(mutex_) = 0;
  std::function<void()> wake_up_ ATTIC_GUARDED_BY(mutex_);
  bool closed_ ATTIC_GUARDED_BY(mutex_) = false;
};

class SegmentRegistry::Hold {
 public:
  Hold(std::shared_ptr<SegmentRegistry> registry, uint64_t number)
      : registry_(std::move(registry)), number_(number) {}
  ~Hold() { registry_->Release(number_); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  uint64_t number() const { return number_; }

 private:
  const std::shared_ptr<SegmentRegistry> registry_;
  const uint64_t number_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_REGISTRY_H_
