#include "server/storage/random_access_file.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "rocksdb/file_system.h"
#include "server/storage/rocksdb_status.h"

namespace attic {

absl::StatusOr<std::unique_ptr<RandomAccessFile>> RandomAccessFile::Open(
    rocksdb::FileSystem& file_system, const std::string& path) {
  rocksdb::FileOptions options;
  options.use_mmap_reads = false;  // an error while reading would be a signal
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  ATTIC_RETURN_IF_ERROR(
      FromRocksDb(file_system.NewRandomAccessFile(path, options, &file, nullptr), path));
  uint64_t bytes = 0;
  ATTIC_RETURN_IF_ERROR(
      FromRocksDb(file_system.GetFileSize(path, rocksdb::IOOptions(), &bytes, nullptr), path));
  // Reading ahead would bring clusters that nobody asked for.
  file->Hint(rocksdb::FSRandomAccessFile::kRandom);
  return std::unique_ptr<RandomAccessFile>(new RandomAccessFile(path, bytes, std::move(file)));
}

RandomAccessFile::RandomAccessFile(std::string path, uint64_t bytes,
                                   std::unique_ptr<rocksdb::FSRandomAccessFile> file)
    : path_(std::move(path)), bytes_(bytes), file_(std::move(file)) {}

RandomAccessFile::~RandomAccessFile() = default;

absl::Status RandomAccessFile::Read(uint64_t offset, std::span<std::byte> out) const {
  rocksdb::Slice read;
  auto* const scratch = reinterpret_cast<char*>(out.data());
  ATTIC_RETURN_IF_ERROR(FromRocksDb(
      file_->Read(offset, out.size(), rocksdb::IOOptions(), &read, scratch, nullptr), path_));
  if (read.size() != out.size()) {
    return absl::DataLossError(
        absl::StrCat(path_, ": ends at byte ", offset + read.size(), ", before it should"));
  }
  if (read.data() != scratch) std::memcpy(scratch, read.data(), read.size());
  return absl::OkStatus();
}

}  // namespace attic
