// Clusters of about 16 KB read 32 at a time: from segment files, and from the SST files of RocksDB
// that hold the same blocks as values. Prints the median of a call in microseconds:
//   cold: nothing in the page cache; warm: all of it there; kept: all of it in the program's cache.
//
// storage_bench [FOLDER [FILES]]: FOLDER must not exist, and is removed.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "rocksdb/file_system.h"
#include "rocksdb/options.h"
#include "rocksdb/table.h"
#include "server/index/segment/segment_builder.h"
#include "server/storage/cluster_cache.h"
#include "server/storage/segment_file.h"

namespace attic {
namespace {

constexpr size_t kDim = 128, kTokens = 8192, kClusters = 256, kReadTogether = 32;
constexpr size_t kColdCalls = 60, kWarmCalls = 400;
constexpr uint64_t kCacheBytes = 4ull << 30;

double Microseconds(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

double Median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

// Takes the files of a folder out of the page cache.
void DropPages(const std::string& folder) {
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const int descriptor = open(file.path().c_str(), O_RDONLY);
    if (descriptor < 0) continue;
    fdatasync(descriptor);
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    close(descriptor);
  }
}

struct Place {
  size_t file;
  uint32_t cluster;
};

class Places {
 public:
  explicit Places(size_t files) : files_(files) {}
  std::vector<Place> Next() {
    std::vector<Place> places;
    for (size_t i = 0; i < kReadTogether; ++i) {
      places.push_back({random_() % files_, static_cast<uint32_t>(random_() % kClusters)});
    }
    return places;
  }

 private:
  const size_t files_;
  std::mt19937 random_{1};
};

std::vector<std::byte> NormalRows(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(kTokens * kDim);
  for (float& x : numbers) x = normal(random);
  std::vector<std::byte> rows(numbers.size() * 2);
  FromFloat32(numbers, ElementType::kBFloat16, rows.data());
  return rows;
}

std::shared_ptr<const Segment> MakeSegment(const std::vector<std::byte>& keys) {
  const VectorsView view{keys.data(), ElementType::kBFloat16, kTokens, kDim};
  const SegmentOptions options{.clusters = kClusters, .super_clusters = 16, .kmeans_iterations = 2};
  return BuildSegment(view, view, 0, options, SignRotation(kDim));
}

// The same segment again and again with other vectors.
class SegmentFiles {
 public:
  SegmentFiles(const std::string& folder, size_t files, const Segment& segment)
      : cache_(std::make_shared<ClusterCache>(ClusterCacheOptions{.bytes_max = kCacheBytes})) {
    VectorArrays vectors{NormalRows(1), NormalRows(2)};
    for (size_t i = 0; i < files; ++i) {
      std::swap(vectors.keys[i], vectors.keys[i + 1024]);
      const std::string path = folder + "/" + std::to_string(i) + ".seg";
      const auto file_system = rocksdb::FileSystem::Default();
      ATTIC_CHECK(WriteSegmentFile(*file_system, path, segment, vectors).ok());
      auto file = OpenSegmentFile(file_system, path, cache_);
      ATTIC_CHECK(file.ok());
      files_.push_back(*std::move(file));
    }
  }

  void Read(const std::vector<Place>& places) {
    std::vector<ClusterRead> reads;
    for (const Place& place : places) {
      reads.push_back({.source = files_[place.file].vectors.get(), .cluster = place.cluster});
    }
    ATTIC_CHECK(files_[0].vectors->ReadClusters(reads).ok());
  }
  void SetCapacity(uint64_t bytes) { cache_->SetCapacity(bytes); }

 private:
  const std::shared_ptr<ClusterCache> cache_;
  std::vector<SegmentFile> files_;
};

// One value per cluster.
class SstFiles {
 public:
  SstFiles(const std::string& folder, size_t files, const Segment& segment)
      : cache_(rocksdb::NewLRUCache(kCacheBytes)) {
    rocksdb::BlockBasedTableOptions table;
    table.block_size = 16 << 10;
    table.block_cache = cache_;
    table.checksum = rocksdb::kXXH3;
    rocksdb::Options options;
    options.create_if_missing = true;
    options.compression = rocksdb::kNoCompression;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    rocksdb::DB* db = nullptr;
    ATTIC_CHECK(rocksdb::DB::Open(options, folder, &db).ok());
    db_.reset(db);
    const std::vector<std::byte> rows = NormalRows(3);
    for (size_t file = 0; file < files; ++file) {
      for (uint32_t c = 0; c < kClusters; ++c) {
        const size_t begin = segment.clusters.row_begin[c] * kDim * 2;
        const size_t bytes = segment.clusters.rows(c) * kDim * 2;
        const std::string half(reinterpret_cast<const char*>(rows.data()) + begin, bytes);
        ATTIC_CHECK(db_->Put({}, KeyOf({file, c}), half + half).ok());
      }
    }
    ATTIC_CHECK(db_->CompactRange({}, nullptr, nullptr).ok());
  }

  void Read(const std::vector<Place>& places) {
    std::vector<std::string> names;
    for (const Place& place : places) names.push_back(KeyOf(place));
    const std::vector<rocksdb::Slice> keys(names.begin(), names.end());
    std::vector<rocksdb::PinnableSlice> values(keys.size());
    std::vector<rocksdb::Status> results(keys.size());
    db_->MultiGet({}, db_->DefaultColumnFamily(), keys.size(), keys.data(), values.data(),
                  results.data());
    for (const rocksdb::Status& result : results) ATTIC_CHECK(result.ok());
  }
  void SetCapacity(uint64_t bytes) { cache_->SetCapacity(bytes); }

 private:
  static std::string KeyOf(const Place& place) {
    char key[32];
    std::snprintf(key, sizeof(key), "%06zu.%06u", place.file, place.cluster);
    return key;
  }

  const std::shared_ptr<rocksdb::Cache> cache_;
  std::unique_ptr<rocksdb::DB> db_;
};

template <typename Files>
void Measure(const char* name, Files& files, const std::string& folder, size_t file_count) {
  Places places(file_count);
  std::vector<double> cold, warm, kept;
  files.SetCapacity(0);
  for (size_t i = 0; i < kColdCalls; ++i) {
    DropPages(folder);
    const std::vector<Place> next = places.Next();
    cold.push_back(Microseconds([&] { files.Read(next); }));
  }
  for (size_t i = 0; i < 80 * file_count; ++i) files.Read(places.Next());
  for (size_t i = 0; i < kWarmCalls; ++i) {
    const std::vector<Place> next = places.Next();
    warm.push_back(Microseconds([&] { files.Read(next); }));
  }
  files.SetCapacity(kCacheBytes);
  for (size_t i = 0; i < 80 * file_count; ++i) files.Read(places.Next());
  for (size_t i = 0; i < kWarmCalls; ++i) {
    const std::vector<Place> next = places.Next();
    kept.push_back(Microseconds([&] { files.Read(next); }));
  }
  std::printf("%-14s cold %8.1f  warm %8.1f  kept %8.2f  us for %zu clusters\n", name, Median(cold),
              Median(warm), Median(kept), kReadTogether);
}

void MeasureHits() {
  constexpr uint32_t kEntries = 8192, kLookups = 1u << 20;
  ClusterCache cache({.bytes_max = 1ull << 30});
  for (uint32_t i = 0; i < kEntries; ++i) {
    cache.Insert(1, i, std::make_unique<std::byte[]>(16 << 10), 8 << 10, 16 << 10);
  }
  std::mt19937 random(2);
  std::vector<uint32_t> clusters(kLookups);
  for (uint32_t& cluster : clusters) cluster = random() % kEntries;
  std::vector<double> times;
  for (int round = 0; round < 7; ++round) {
    times.push_back(Microseconds([&] {
      for (const uint32_t cluster : clusters) {
        ClusterRows rows;
        ATTIC_CHECK(cache.Lookup(1, cluster, 8 << 10, rows));
      }
    }));
  }
  std::printf("hit of the cache: %.0f ns\n", Median(times) * 1000 / kLookups);
}

void Run(const std::string& folder, size_t files) {
  ATTIC_CHECK(std::filesystem::create_directories(folder + "/segments"));
  const std::shared_ptr<const Segment> segment = MakeSegment(NormalRows(1));
  std::printf("%zu files of %zu clusters, %zu bytes a cluster on average\n", files, kClusters,
              kTokens * kDim * 4 / kClusters);
  MeasureHits();
  {
    SegmentFiles segments(folder + "/segments", files, *segment);
    Measure("segment files", segments, folder + "/segments", files);
  }
  {
    SstFiles tables(folder + "/records", files, *segment);
    Measure("RocksDB 7.8", tables, folder + "/records", files);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  attic::Run(argc > 1 ? argv[1] : "/tmp/attic_storage_bench",
             argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 64);
}
