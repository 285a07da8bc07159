#include "server/storage/file_io.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/rocksdb_status.h"

namespace attic {

using rocksdb::FileOptions;
using rocksdb::IOOptions;

absl::Status SyncFolder(rocksdb::FileSystem& file_system, const std::string& folder) {
  std::unique_ptr<rocksdb::FSDirectory> directory;
  ATTIC_RETURN_IF_ERROR(
      FromRocksDb(file_system.NewDirectory(folder, IOOptions(), &directory, nullptr), folder));
  const absl::Status synced = FromRocksDb(directory->Fsync(IOOptions(), nullptr), folder);
  const absl::Status closed = FromRocksDb(directory->Close(IOOptions(), nullptr), folder);
  return synced.ok() ? closed : synced;
}

absl::Status ReplaceFile(rocksdb::FileSystem& file_system, const std::string& folder,
                         const std::string& name, std::string_view content,
                         std::unique_ptr<rocksdb::FSWritableFile>* open) {
  const std::string path = absl::StrCat(folder, "/", name);
  const std::string unfinished = absl::StrCat(path, ".tmp");
  std::unique_ptr<rocksdb::FSWritableFile> file;
  rocksdb::IOStatus status = file_system.NewWritableFile(unfinished, FileOptions(), &file, nullptr);
  if (status.ok()) {
    status = file->Append(rocksdb::Slice(content.data(), content.size()), IOOptions(), nullptr);
  }
  if (status.ok()) status = file->Sync(IOOptions(), nullptr);
  if (status.ok() && open == nullptr) status = file->Close(IOOptions(), nullptr);
  if (status.ok()) status = file_system.RenameFile(unfinished, path, IOOptions(), nullptr);
  ATTIC_RETURN_IF_ERROR(FromRocksDb(status, path));
  ATTIC_RETURN_IF_ERROR(SyncFolder(file_system, folder));
  if (open != nullptr) *open = std::move(file);
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadSmallFile(rocksdb::FileSystem& file_system, const std::string& path,
                                          size_t bytes_max) {
  // Asked first, because opening what does not exist is logged by some file systems.
  ATTIC_RETURN_IF_ERROR(FromRocksDb(file_system.FileExists(path, IOOptions(), nullptr), path));
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  ATTIC_RETURN_IF_ERROR(
      FromRocksDb(file_system.NewSequentialFile(path, FileOptions(), &file, nullptr), path));
  std::string content(bytes_max + 1, '\0');
  size_t filled = 0;
  while (filled < content.size()) {
    rocksdb::Slice read;
    ATTIC_RETURN_IF_ERROR(FromRocksDb(
        file->Read(content.size() - filled, IOOptions(), &read, content.data() + filled, nullptr),
        path));
    if (read.empty()) break;
    // A file system may answer from memory of its own.
    if (read.data() != content.data() + filled) {
      content.replace(filled, read.size(), read.data(), read.size());
    }
    filled += read.size();
  }
  if (filled > bytes_max) return absl::DataLossError(absl::StrCat(path, ": it is too large"));
  content.resize(filled);
  return content;
}

}  // namespace attic
