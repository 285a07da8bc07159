// Reads single rows of a head's segments for one query, from memory or from their files.
#ifndef ATTIC_SERVER_INDEX_SEARCH_ROW_READER_H_
#define ATTIC_SERVER_INDEX_SEARCH_ROW_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "api/types.h"
#include "server/index/indexed_part.h"
#include "server/index/segment/segment_vectors.h"

namespace attic {

// Rows that are in memory cost nothing to fetch. The others are fetched cluster by cluster, many at
// a time. Not thread-safe; borrows the part.
class RowReader {
 public:
  // Forgets what was read for the last query.
  void Begin(const IndexedPart& part);

  // Makes the keys and values of rows readable until the next call, and counts what the disk read
  // in `read`. False when some could not be read: status() says why, from then on.
  bool Fetch(std::span<const ClusterRow> rows, ReadStatistics& read);

  // Rows of the segment are read from memory.
  bool resident(size_t segment) { return State(segment).arrays != nullptr; }

  // The key of a row of the segment, null when it is on disk.
  const std::byte* ResidentKey(size_t segment, size_t row) {
    const SegmentState& state = State(segment);
    return state.arrays == nullptr ? nullptr : state.arrays->keys.data() + row * key_bytes_;
  }

  // Of rows last fetched.
  const std::byte* key(ClusterRow row) { return Rows(row).keys; }
  const std::byte* value(ClusterRow row) { return Rows(row).values; }
  // The value stays readable until Begin.
  const std::byte* KeepValue(ClusterRow row);

  // All rows of the segment; null when they cannot be read. Kept until the next call or Begin,
  // unless they are in memory.
  const VectorArrays* Arrays(size_t segment, ReadStatistics& read);

  const absl::Status& status() const { return status_; }
  // Takes over the failure of another reader for the same query.
  void Fail(const absl::Status& status) { status_.Update(status); }

 private:
  struct SegmentState {
    bool known = false;
    std::shared_ptr<const VectorArrays> arrays;  // null: on disk
    const uint32_t* row_begin = nullptr;
    std::vector<uint32_t> fetched;  // (clusters): 1 + place in reads_, or 0; empty: none
  };
  // Pointers to one row.
  struct RowPointers {
    const std::byte* keys;
    const std::byte* values;
  };

  SegmentState& State(size_t segment);
  bool Pin(size_t read);
  RowPointers Rows(ClusterRow row);
  void ForgetFetched();

  const IndexedPart* part_ = nullptr;
  size_t key_bytes_ = 0, value_bytes_ = 0;  // of a row
  std::vector<SegmentState> segments_;
  std::vector<ClusterRead> reads_;
  std::vector<uint32_t> nodes_;  // of reads_
  std::vector<bool> pinned_;     // of reads_
  // Clusters whose values are kept, and beyond kPinnedBytesMax copies of rows.
  std::vector<std::shared_ptr<const void>> pins_;
  uint64_t pinned_bytes_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> kept_;
  size_t kept_left_ = 0;  // rows free in the last of kept_
  std::shared_ptr<const VectorArrays> scanned_;
  absl::Status status_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_ROW_READER_H_
