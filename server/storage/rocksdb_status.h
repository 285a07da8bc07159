// RocksDB's errors as those of this program.
#ifndef ATTIC_SERVER_STORAGE_ROCKSDB_STATUS_H_
#define ATTIC_SERVER_STORAGE_ROCKSDB_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "rocksdb/status.h"

namespace attic {

// OK for OK. The message begins with `context`, which names the file or what was tried.
//   NOT_FOUND: no such key, file or folder; RESOURCE_EXHAUSTED: no room, a quota or a limit of
//   memory; DATA_LOSS: damaged; FAILED_PRECONDITION: locked by another, or not to be used this way;
//   INTERNAL: refused arguments; UNAVAILABLE: every other failure of the disk.
// rocksdb::IOStatus is a rocksdb::Status.
absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& context);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_ROCKSDB_STATUS_H_
