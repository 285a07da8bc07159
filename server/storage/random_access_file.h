// A file that is read at any place, with errors as those of this program.
#ifndef ATTIC_SERVER_STORAGE_RANDOM_ACCESS_FILE_H_
#define ATTIC_SERVER_STORAGE_RANDOM_ACCESS_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rocksdb {
class FileSystem;
class FSRandomAccessFile;
}  // namespace rocksdb

namespace attic {

// Thread-safe.
class RandomAccessFile {
 public:
  // `direct`: reads past the page cache, in whole blocks of the device.
  //   NOT_FOUND; UNAVAILABLE: it cannot be opened, or not so.
  static absl::StatusOr<std::unique_ptr<RandomAccessFile>> Open(rocksdb::FileSystem& file_system,
                                                                const std::string& path,
                                                                bool direct);
  ~RandomAccessFile();

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }  // when it was opened

  // Fills `out` with what is at `offset`.
  //   UNAVAILABLE: it cannot be read; DATA_LOSS: the file ends before.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  RandomAccessFile(std::string path, uint64_t bytes,
                   std::unique_ptr<rocksdb::FSRandomAccessFile> file);

  absl::Status ReadDirectly(uint64_t offset, std::span<std::byte> out) const;
  absl::Status EndsBefore(uint64_t end) const;

  const std::string path_;
  const uint64_t bytes_;
  const std::unique_ptr<rocksdb::FSRandomAccessFile> file_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_RANDOM_ACCESS_FILE_H_
