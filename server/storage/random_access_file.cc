#include "server/storage/random_access_file.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "rocksdb/file_system.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

struct AlignedDelete {
  size_t alignment;
  void operator()(std::byte* bytes) const {
    ::operator delete[](bytes, std::align_val_t(alignment));
  }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;

AlignedBytes AllocateAligned(size_t bytes, size_t alignment) {
  return AlignedBytes(new (std::align_val_t(alignment)) std::byte[bytes], {alignment});
}

}  // namespace

absl::StatusOr<std::unique_ptr<RandomAccessFile>> RandomAccessFile::Open(
    rocksdb::FileSystem& file_system, const std::string& path, bool direct) {
  rocksdb::FileOptions options;
  options.use_direct_reads = direct;
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
  if (out.empty()) return absl::OkStatus();
  if (file_->use_direct_io()) return ReadDirectly(offset, out);
  rocksdb::Slice read;
  auto* const scratch = reinterpret_cast<char*>(out.data());
  ATTIC_RETURN_IF_ERROR(FromRocksDb(
      file_->Read(offset, out.size(), rocksdb::IOOptions(), &read, scratch, nullptr), path_));
  if (read.size() != out.size()) return EndsBefore(offset + out.size());
  if (read.data() != scratch) std::memcpy(scratch, read.data(), read.size());
  return absl::OkStatus();
}

// Offset, size and memory are multiples of what the device asks for.
absl::Status RandomAccessFile::ReadDirectly(uint64_t offset, std::span<std::byte> out) const {
  const size_t alignment = file_->GetRequiredBufferAlignment();
  const uint64_t begin = offset / alignment * alignment;
  const size_t bytes = (offset + out.size() - begin + alignment - 1) / alignment * alignment;
  const AlignedBytes buffer = AllocateAligned(bytes, alignment);
  rocksdb::Slice read;
  ATTIC_RETURN_IF_ERROR(FromRocksDb(file_->Read(begin, bytes, rocksdb::IOOptions(), &read,
                                                reinterpret_cast<char*>(buffer.get()), nullptr),
                                    path_));
  if (begin + read.size() < offset + out.size()) return EndsBefore(offset + out.size());
  std::memcpy(out.data(), read.data() + (offset - begin), out.size());
  return absl::OkStatus();
}

absl::Status RandomAccessFile::EndsBefore(uint64_t end) const {
  return absl::DataLossError(absl::StrCat(path_, ": truncated, ends before byte ", end));
}

}  // namespace attic
