#include "server/storage/segment_file.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "rocksdb/file_system.h"
#include "server/storage/file_vectors.h"
#include "server/storage/random_access_file.h"
#include "server/storage/rocksdb_status.h"
#include "server/storage/segment_codec.h"
#include "server/storage/segment_format.h"

namespace attic {
namespace {

constexpr char kTemporarySuffix[] = ".tmp";
constexpr size_t kWriteBytes = 1u << 20;  // of one write

// Appends to a file in pieces of kWriteBytes.
class GatheredWriter {
 public:
  explicit GatheredWriter(rocksdb::FSWritableFile& file) : file_(file) {
    buffer_.reserve(kWriteBytes);
  }

  rocksdb::IOStatus Append(std::span<const std::byte> bytes) {
    rocksdb::IOStatus status;
    while (!bytes.empty() && status.ok()) {
      const size_t count = std::min(bytes.size(), kWriteBytes - buffer_.size());
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + count);
      bytes = bytes.subspan(count);
      if (buffer_.size() == kWriteBytes) status = Flush();
    }
    return status;
  }

  rocksdb::IOStatus Flush() {
    const rocksdb::Slice bytes(reinterpret_cast<const char*>(buffer_.data()), buffer_.size());
    rocksdb::IOStatus status;
    if (!bytes.empty()) status = file_.Append(bytes, rocksdb::IOOptions(), nullptr);
    buffer_.clear();
    return status;
  }

 private:
  rocksdb::FSWritableFile& file_;
  std::vector<std::byte> buffer_;
};

rocksdb::IOStatus AppendAll(rocksdb::FSWritableFile& file, std::span<const std::byte> index,
                            const Segment& segment, const VectorArrays& vectors) {
  GatheredWriter writer(file);
  rocksdb::IOStatus status = writer.Append(index);
  const std::span keys(vectors.keys), values(vectors.values);
  const size_t key_bytes = keys.size() / segment.tokens;
  const size_t value_bytes = values.size() / segment.tokens;
  for (size_t cluster = 0; cluster < segment.clusters.count && status.ok(); ++cluster) {
    const size_t row = segment.clusters.row_begin[cluster], rows = segment.clusters.rows(cluster);
    status = writer.Append(keys.subspan(row * key_bytes, rows * key_bytes));
    if (status.ok()) status = writer.Append(values.subspan(row * value_bytes, rows * value_bytes));
  }
  return status.ok() ? writer.Flush() : status;
}

// Writes and syncs; the file may be there in part after an error.
rocksdb::IOStatus WriteWhole(rocksdb::FileSystem& file_system, const std::string& path,
                             std::span<const std::byte> index, const Segment& segment,
                             const VectorArrays& vectors) {
  rocksdb::FileOptions options;
  options.use_mmap_writes = false;  // a full disk would be a signal
  std::unique_ptr<rocksdb::FSWritableFile> file;
  rocksdb::IOStatus status = file_system.NewWritableFile(path, options, &file, nullptr);
  if (!status.ok()) return status;
  const rocksdb::IOOptions io;
  status = AppendAll(*file, index, segment, vectors);
  if (status.ok()) status = file->Sync(io, nullptr);
  const rocksdb::IOStatus closed = file->Close(io, nullptr);
  return status.ok() ? closed : status;
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

rocksdb::IOStatus SyncFolder(rocksdb::FileSystem& file_system, const std::string& folder) {
  const rocksdb::IOOptions io(/*force_dir_fsync=*/true);
  std::unique_ptr<rocksdb::FSDirectory> directory;
  rocksdb::IOStatus status = file_system.NewDirectory(folder, io, &directory, nullptr);
  if (status.ok()) status = directory->Fsync(io, nullptr);
  return status;
}

absl::Status CheckAbsent(rocksdb::FileSystem& file_system, const std::string& path) {
  const rocksdb::IOStatus found = file_system.FileExists(path, rocksdb::IOOptions(), nullptr);
  if (found.ok()) return absl::AlreadyExistsError(absl::StrCat(path, ": exists"));
  return found.IsNotFound() ? absl::OkStatus() : FromRocksDb(found, path);
}

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", std::string(status.message())));
}

struct OpenedFile {
  std::shared_ptr<Segment> segment;
  FileClusters clusters;
};

absl::StatusOr<OpenedFile> OpenAndCheck(rocksdb::FileSystem& file_system, const std::string& path,
                                        bool direct) {
  OpenedFile opened;
  FileClusters& clusters = opened.clusters;
  ATTIC_ASSIGN_OR_RETURN(clusters.file, RandomAccessFile::Open(file_system, path, direct));
  std::array<std::byte, kSegmentHeaderBytes> first;
  ATTIC_RETURN_IF_ERROR(clusters.file->Read(0, first));
  const absl::StatusOr<SegmentHeader> header = DecodeHeader(first, clusters.file->bytes());
  if (!header.ok()) return WithPath(header.status(), path);
  clusters.identity = header->identity;
  clusters.shape = header->shape;
  clusters.vectors_offset = header->section(SectionKind::kVectors).offset;
  // The header said where the file ends, and it ends there: so this is no larger than the file.
  std::vector<std::byte> bytes(clusters.vectors_offset - kSegmentHeaderBytes);
  ATTIC_RETURN_IF_ERROR(clusters.file->Read(kSegmentHeaderBytes, bytes));
  absl::StatusOr<DecodedIndex> index = DecodeIndex(*header, bytes);
  if (!index.ok()) return WithPath(index.status(), path);
  opened.segment = std::move(index->segment);
  clusters.row_begin = opened.segment->clusters.row_begin;
  clusters.checksum = std::move(index->cluster_checksum);
  // An empty cluster has a checksum like any other, and is never read.
  for (size_t cluster = 0; cluster < clusters.count(); ++cluster) {
    if (clusters.rows(cluster) == 0) ATTIC_RETURN_IF_ERROR(clusters.Check(cluster, {}));
  }
  return opened;
}

}  // namespace

absl::StatusOr<uint64_t> WriteSegmentFile(rocksdb::FileSystem& file_system, const std::string& path,
                                          const Segment& segment, const VectorArrays& vectors) {
  ATTIC_ASSIGN_OR_RETURN(const std::vector<std::byte> index, EncodeIndex(segment, vectors));
  ATTIC_RETURN_IF_ERROR(CheckAbsent(file_system, path));
  const std::string temporary = path + kTemporarySuffix;
  const rocksdb::IOOptions io;
  rocksdb::IOStatus status = WriteWhole(file_system, temporary, index, segment, vectors);
  if (status.ok()) status = file_system.RenameFile(temporary, path, io, nullptr);
  if (!status.ok()) {
    file_system.DeleteFile(temporary, io, nullptr).PermitUncheckedError();
    return FromRocksDb(status, path);
  }
  status = SyncFolder(file_system, FolderOf(path));
  if (!status.ok()) {
    file_system.DeleteFile(path, io, nullptr).PermitUncheckedError();
    return FromRocksDb(status, path);
  }
  return index.size() + vectors.bytes();
}

absl::StatusOr<SegmentFile> OpenSegmentFile(std::shared_ptr<rocksdb::FileSystem> file_system,
                                            const std::string& path,
                                            std::shared_ptr<ClusterCache> cache,
                                            const SegmentFileOptions& options) {
  ATTIC_ASSIGN_OR_RETURN(OpenedFile opened, OpenAndCheck(*file_system, path, options.direct_reads));
  const uint64_t bytes = opened.clusters.file->bytes(), identity = opened.clusters.identity;
  return SegmentFile{
      .segment = std::move(opened.segment),
      .vectors = std::make_shared<FileVectors>(std::move(opened.clusters), std::move(cache)),
      .file_bytes = bytes,
      .identity = identity};
}

absl::Status VerifySegmentFile(rocksdb::FileSystem& file_system, const std::string& path) {
  ATTIC_ASSIGN_OR_RETURN(const OpenedFile opened,
                         OpenAndCheck(file_system, path, /*direct=*/false));
  return opened.clusters.ReadEach([](size_t, std::span<const std::byte>) {});
}

SegmentExamination ExamineSegmentFile(rocksdb::FileSystem& file_system, const std::string& path) {
  SegmentExamination found;
  const absl::StatusOr<OpenedFile> opened = OpenAndCheck(file_system, path, /*direct=*/false);
  found.opened = opened.status();
  if (!opened.ok()) return found;
  const FileClusters& clusters = opened->clusters;
  const Segment& segment = *opened->segment;
  found.file_bytes = clusters.file->bytes();
  found.identity = clusters.identity;
  found.element_type = segment.element_type;
  found.head_dim = segment.head_dim;
  found.value_dim = segment.value_dim;
  found.positions = segment.range();
  std::vector<std::byte> block;
  for (size_t cluster = 0; cluster < clusters.count(); ++cluster) {
    if (clusters.rows(cluster) == 0) continue;
    block.resize(clusters.bytes(cluster, cluster + 1));
    found.read = clusters.Read(cluster, block);
    if (!found.read.ok()) return found;
    const absl::Status checked = clusters.Check(cluster, block);
    if (checked.ok() || ++found.damaged_clusters > SegmentExamination::kDamagedClustersMax) {
      continue;
    }
    // Those of a cluster ascend.
    found.clusters.push_back(
        {.cluster = static_cast<uint32_t>(cluster),
         .positions = {segment.position(clusters.row_begin[cluster]),
                       segment.position(clusters.row_begin[cluster + 1] - 1) + 1},
         .what = std::string(checked.message())});
  }
  return found;
}

}  // namespace attic
