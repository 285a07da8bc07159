#include "server/storage/file_vectors.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention/element_type.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace attic {
namespace {

// One read of several clusters stops here, unless one cluster is larger.
constexpr size_t kJoinedReadBytesMax = 1u << 20;
constexpr size_t kWholeReadBytesMax = 4u << 20;  // the same where all clusters are read
// A read that took longer went to the disk. (16 KB from the page cache: 3 microseconds.)
constexpr std::chrono::microseconds kDiskReadMin(30);

constexpr std::byte kNoRows{};  // where the rows of empty clusters are

const FileVectors& SourceOf(const ClusterRead& read) {
  const auto* source = dynamic_cast<const FileVectors*>(read.source);
  ATTIC_CHECK(source != nullptr);
  return *source;
}

}  // namespace

absl::Status FileClusters::Read(size_t begin, std::span<std::byte> out) const {
  return file->Read(vectors_offset + row_begin[begin] * shape.row_bytes(), out);
}

absl::Status FileClusters::Check(size_t cluster, std::span<const std::byte> block) const {
  const char* what = nullptr;
  if (BlockChecksum(block, identity, SectionKind::kVectors, static_cast<uint32_t>(cluster)) !=
      checksum[cluster]) {
    what = "checksum";
  } else if (!AllFinite(block.data(), shape.element_type,
                        block.size() / ElementBytes(shape.element_type))) {
    what = "NaN or infinity";
  }
  if (what == nullptr) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(file->path(), ": cluster ", cluster, ": ", what));
}

absl::Status FileClusters::ReadEach(
    const std::function<void(size_t, std::span<const std::byte>)>& visit) const {
  std::vector<std::byte> buffer;
  for (size_t begin = 0, end = 0; begin < count(); begin = end) {
    end = begin + 1;
    while (end < count() && bytes(begin, end + 1) <= kWholeReadBytesMax) ++end;
    buffer.resize(bytes(begin, end));
    ATTIC_RETURN_IF_ERROR(Read(begin, buffer));
    for (size_t cluster = begin; cluster < end; ++cluster) {
      const auto block =
          std::span(buffer).subspan(bytes(begin, cluster), bytes(cluster, cluster + 1));
      ATTIC_RETURN_IF_ERROR(Check(cluster, block));
      visit(cluster, block);
    }
  }
  return absl::OkStatus();
}

FileVectors::FileVectors(FileClusters clusters, std::shared_ptr<ClusterCache> cache)
    : clusters_(std::move(clusters)), cache_(std::move(cache)), source_(cache_->NewSource()) {}

absl::Status FileVectors::ReadClusters(std::span<ClusterRead> reads) const {
  std::vector<ClusterRead*> misses;
  for (ClusterRead& read : reads) {
    const FileVectors& source = SourceOf(read);
    const FileClusters& clusters = source.clusters_;
    ATTIC_CHECK(read.cluster < clusters.count());
    read.disk_bytes = 0;
    if (clusters.rows(read.cluster) == 0) {
      read.rows = {&kNoRows, &kNoRows, nullptr};
    } else if (!source.cache_->Lookup(source.source_, read.cluster,
                                      clusters.keys_bytes(read.cluster), read.rows)) {
      misses.push_back(&read);
    }
  }
  cache_->Count(reads.size() - misses.size(), misses.size());
  return misses.empty() ? absl::OkStatus() : ReadMisses(misses);
}

absl::Status FileVectors::ReadMisses(std::span<ClusterRead*> misses) const {
  std::sort(misses.begin(), misses.end(), [](const ClusterRead* a, const ClusterRead* b) {
    return a->source != b->source ? std::less<>()(a->source, b->source) : a->cluster < b->cluster;
  });
  std::vector<Run> runs;
  for (size_t begin = 0, end = 0; begin < misses.size(); begin = end) {
    const ClusterRead& first = *misses[begin];
    const FileClusters& clusters = SourceOf(first).clusters_;
    for (end = begin + 1; end < misses.size(); ++end) {
      const ClusterRead& next = *misses[end];
      const uint32_t last = misses[end - 1]->cluster;
      // Empty clusters between do not part them.
      if (next.source != first.source ||
          (next.cluster != last &&
           clusters.row_begin[next.cluster] != clusters.row_begin[last + 1]) ||
          clusters.bytes(first.cluster, next.cluster + 1) > kJoinedReadBytesMax) {
        break;
      }
    }
    runs.push_back(Run(misses).subspan(begin, end - begin));
  }
  std::vector<absl::Status> results(runs.size());
  cache_->read_threads().ParallelFor(
      runs.size(), [&](size_t i) { results[i] = SourceOf(*runs[i].front()).ReadRun(runs[i]); });
  for (absl::Status& result : results) ATTIC_RETURN_IF_ERROR(std::move(result));
  return absl::OkStatus();
}

absl::Status FileVectors::ReadRun(Run run) const {
  const size_t first = run.front()->cluster, end = run.back()->cluster + 1;
  const size_t run_bytes = clusters_.bytes(first, end);
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(run_bytes);
  ATTIC_RETURN_IF_ERROR(clusters_.Read(first, {buffer.get(), run_bytes}));
  cache_->CountDiskBytes(run_bytes);
  for (size_t i = 0; i < run.size(); ++i) {
    ClusterRead& read = *run[i];
    if (i > 0 && run[i - 1]->cluster == read.cluster) {
      read.rows = run[i - 1]->rows;
      continue;
    }
    const size_t bytes = clusters_.bytes(read.cluster, read.cluster + 1);
    const std::byte* const at = buffer.get() + clusters_.bytes(first, read.cluster);
    ATTIC_RETURN_IF_ERROR(clusters_.Check(read.cluster, {at, bytes}));
    // The cache owns clusters one by one.
    std::unique_ptr<std::byte[]> block;
    if (bytes == run_bytes) {
      block = std::move(buffer);
    } else {
      block = std::make_unique_for_overwrite<std::byte[]>(bytes);
      std::copy_n(at, bytes, block.get());
    }
    read.rows = cache_->Insert(source_, read.cluster, std::move(block),
                               clusters_.keys_bytes(read.cluster), bytes);
    read.disk_bytes = bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<VectorArrays> FileVectors::ReadAll() const {
  const SegmentShape& shape = clusters_.shape;
  VectorArrays arrays;
  arrays.keys.resize(shape.tokens * shape.key_bytes());
  arrays.values.resize(shape.tokens * shape.value_bytes());
  ATTIC_RETURN_IF_ERROR(clusters_.ReadEach([&](size_t cluster, std::span<const std::byte> block) {
    const size_t row = clusters_.row_begin[cluster];
    const auto values = block.begin() + clusters_.keys_bytes(cluster);
    std::copy(block.begin(), values, arrays.keys.begin() + row * shape.key_bytes());
    std::copy(values, block.end(), arrays.values.begin() + row * shape.value_bytes());
  }));
  cache_->CountDiskBytes(arrays.bytes());
  return arrays;
}

void FileVectors::Keep(uint32_t cluster, std::span<const std::byte> keys,
                       std::span<const std::byte> values) const {
  ATTIC_CHECK(cluster < clusters_.count());
  const size_t bytes = keys.size() + values.size();
  ATTIC_CHECK(keys.size() == clusters_.keys_bytes(cluster) &&
              bytes == clusters_.bytes(cluster, cluster + 1));
  if (bytes == 0) return;
  auto block = std::make_unique_for_overwrite<std::byte[]>(bytes);
  std::copy(keys.begin(), keys.end(), block.get());
  std::copy(values.begin(), values.end(), block.get() + keys.size());
  cache_->Insert(source_, cluster, std::move(block), keys.size(), bytes);
}

}  // namespace attic
