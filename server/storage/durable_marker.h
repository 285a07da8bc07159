// DIRECTORY/DURABLE: how far the records are known to be durable.
//
// RocksDB cannot tell the torn end of a log, which a crash leaves, from a damaged one: it drops
// either. So after each sync the number of the last write it covered is put down here. Records that
// hold less than that when they are opened have lost something that was promised.
#ifndef ATTIC_SERVER_STORAGE_DURABLE_MARKER_H_
#define ATTIC_SERVER_STORAGE_DURABLE_MARKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/file_system.h"

namespace attic {

// Not thread-safe, except where said.
class DurableMarker {
 public:
  // The file starts anew at this size.
  static constexpr size_t kFileBytesMax = 1u << 20;
  // Advances between two syncs of the file. A number that is lost with the machine's power only
  // makes the check weaker, so not every one is worth a sync.
  static constexpr uint64_t kAdvancesPerSync = 256;

  struct Found {
    uint64_t number = 0;
    bool missing = false;
    bool damaged = false;  // more than a torn end is wrong; number is the last that can be read
  };
  //   UNAVAILABLE: the file cannot be read.
  static absl::StatusOr<Found> Read(rocksdb::FileSystem& file_system, const std::string& directory);

  // Nothing is written before Start. Borrows `file_system`.
  DurableMarker(rocksdb::FileSystem& file_system, std::string directory);

  // Starts a new file with `number`, durable when it returns.
  absl::Status Start(uint64_t number);
  // Every write up to `number` is durable. Failing to say so is no failure of the write: the next
  // call tries again with a new file.
  void Advance(uint64_t number);
  // Makes the last number durable.
  absl::Status Sync();

 private:
  rocksdb::FileSystem& file_system_;
  const std::string directory_;
  std::unique_ptr<rocksdb::FSWritableFile> file_;  // null: none yet, or it could not be written
  size_t file_bytes_ = 0;
  uint64_t advances_ = 0;  // since the last sync of the file
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_DURABLE_MARKER_H_
