// A file system that changes nothing.
#ifndef ATTIC_SERVER_STORAGE_READ_ONLY_FILE_SYSTEM_H_
#define ATTIC_SERVER_STORAGE_READ_ONLY_FILE_SYSTEM_H_

#include <memory>

#include "rocksdb/file_system.h"

namespace attic {

// `target`, less everything that makes, changes or deletes something: that fails (NotSupported).
// Files that exist can be locked.
std::shared_ptr<rocksdb::FileSystem> ReadOnlyFileSystem(
    std::shared_ptr<rocksdb::FileSystem> target);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_READ_ONLY_FILE_SYSTEM_H_
