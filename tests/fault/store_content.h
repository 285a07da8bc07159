// Content for tests of a durable store, which follows from small numbers.
#ifndef ATTIC_TESTS_FAULT_STORE_CONTENT_H_
#define ATTIC_TESTS_FAULT_STORE_CONTENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/index/segment/segment.h"
#include "server/index/segment/segment_vectors.h"
#include "server/storage/durable_store.h"

namespace attic {

constexpr int64_t kSegmentTokens = 7;

// Where every operation fails once: of how many one does. The sanitizer build looks for other
// errors, in fewer runs.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr uint64_t kEvery = 7;
#else
inline constexpr uint64_t kEvery = 1;
#endif

uint64_t HashOf(const void* data, size_t bytes);

// Rows of one layer.
class PieceContent {
 public:
  PieceContent(const Fingerprint& fingerprint, int64_t begin, uint64_t count, uint32_t seed);
  // Without those before `begin`.
  RowsRecord From(int64_t begin) const;

 private:
  int64_t begin_;
  uint64_t count_;
  size_t key_bytes_, value_bytes_;  // of one row
  std::vector<std::byte> keys_, values_;
  std::vector<float> query_sample_;
};

struct SegmentContent {
  SegmentContent(int64_t begin, uint32_t seed);
  Segment segment;
  VectorArrays vectors;
};

// For stores whose rows soon go from the log to files.
DurableStoreOptions SmallStore(const std::string& directory,
                               std::shared_ptr<rocksdb::FileSystem> file_system = nullptr);

// A session of a few layers and heads, without an id.
SessionRecord RandomRecord(std::mt19937& random);

}  // namespace attic

#endif  // ATTIC_TESTS_FAULT_STORE_CONTENT_H_
