// A data directory as such: who may use it, of which layout it is, and the folders in it.
#ifndef ATTIC_SERVER_STORAGE_DATA_DIRECTORY_H_
#define ATTIC_SERVER_STORAGE_DATA_DIRECTORY_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/file_system.h"

namespace attic {

// Holds the directory's lock for its lifetime.
class DataDirectory {
 public:
  // Takes the lock, makes the directory and its folders where they are missing, and checks the
  // version.
  //   FAILED_PRECONDITION: held by a process, of another version, or not empty and no data
  //   directory; DATA_LOSS: there are segments, but no VERSION.
  static absl::StatusOr<std::unique_ptr<DataDirectory>> Open(
      std::shared_ptr<rocksdb::FileSystem> file_system, const std::string& path);
  // The same of a directory that is to be looked at: nothing is made or changed.
  //   NOT_FOUND: there is no directory; FAILED_PRECONDITION as above, also of one that is empty.
  static absl::StatusOr<std::unique_ptr<DataDirectory>> OpenToExamine(
      std::shared_ptr<rocksdb::FileSystem> file_system, const std::string& path);
  ~DataDirectory();
  DataDirectory(const DataDirectory&) = delete;
  DataDirectory& operator=(const DataDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string segments_path() const { return path_ + "/segments"; }
  // There is no VERSION: nothing was ever kept here, and a crash may have left anything.
  bool is_new() const { return is_new_; }
  // False of one that is only examined and lies where nothing can be locked.
  bool locked() const { return lock_ != nullptr; }
  // What this program keeps in the directory itself.
  static bool IsOwnName(std::string_view name);
  // To be called when all else is there: writes VERSION.
  absl::Status Complete();

 private:
  DataDirectory(std::shared_ptr<rocksdb::FileSystem> file_system, std::string path);

  absl::Status Lock();
  absl::Status LockIfPossible();
  absl::Status CheckVersion();
  // Of a directory without VERSION.
  absl::Status CheckLeftovers();
  absl::Status MakeFolders();

  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::string path_;
  rocksdb::FileLock* lock_ = nullptr;  // owned; given back to file_system_
  bool is_new_ = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_DATA_DIRECTORY_H_
