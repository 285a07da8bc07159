// Segments for tests of storage, and files to put them into.
#ifndef ATTIC_TESTS_UNIT_STORAGE_SAMPLE_SEGMENT_H_
#define ATTIC_TESTS_UNIT_STORAGE_SAMPLE_SEGMENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "rocksdb/file_system.h"
#include "server/index/segment/segment.h"
#include "server/index/segment/segment_vectors.h"
#include "server/storage/cluster_cache.h"

namespace attic {

struct SampleSegment {
  std::shared_ptr<Segment> segment;
  VectorArrays vectors;
};

struct SampleShape {
  ElementType element_type = ElementType::kBFloat16;
  size_t head_dim = 64;
  size_t value_dim = 64;
  size_t tokens = 1000;
  size_t clusters = 32;
  size_t super_clusters = 4;
  int64_t begin_position = 0;
};

// Of normally distributed vectors, as a store builds it.
SampleSegment BuiltSegment(const SampleShape& shape, uint32_t seed);

// Of seven tokens, written down by hand without library functions: the same on every machine. One
// of its four clusters is empty.
SampleSegment HandMadeSegment();

// Every field but the vectors.
void ExpectSameSegment(const Segment& actual, const Segment& expected);

std::string ReadBytes(const std::string& path);
void WriteBytes(const std::string& path, const std::string& bytes);

std::shared_ptr<rocksdb::FileSystem> MachineFileSystem();
std::shared_ptr<ClusterCache> SmallCache(uint64_t bytes_max = 1u << 20);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_STORAGE_SAMPLE_SEGMENT_H_
