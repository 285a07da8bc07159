// Small files of the data directory, written whole or not at all.
#ifndef ATTIC_SERVER_STORAGE_FILE_IO_H_
#define ATTIC_SERVER_STORAGE_FILE_IO_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/file_system.h"

namespace attic {

// Makes what was created, renamed or deleted in a folder so far durable.
absl::Status SyncFolder(rocksdb::FileSystem& file_system, const std::string& folder);

// Replaces folder/name by a file holding `content`, durable when it returns; a crash leaves the old
// file or the new one. With `open`, the new file stays open there for appending.
absl::Status ReplaceFile(rocksdb::FileSystem& file_system, const std::string& folder,
                         const std::string& name, std::string_view content,
                         std::unique_ptr<rocksdb::FSWritableFile>* open = nullptr);

// All of a file. NOT_FOUND; DATA_LOSS if it is larger than `bytes_max`, which no whole one is.
absl::StatusOr<std::string> ReadSmallFile(rocksdb::FileSystem& file_system, const std::string& path,
                                          size_t bytes_max);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_FILE_IO_H_
