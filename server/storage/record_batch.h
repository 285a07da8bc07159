// Changes of records that are made together or not at all.
#ifndef ATTIC_SERVER_STORAGE_RECORD_BATCH_H_
#define ATTIC_SERVER_STORAGE_RECORD_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "rocksdb/write_batch.h"

namespace attic {

// The kinds of records have one space of keys, in which the kind is the first byte.
enum class RecordSpace : uint8_t {
  kCounters = 'c',
  kHeads = 'h',
  kRows = 'r',
  kRowsData = 'd',
  kSegments = 'g',
  kSessions = 's',
};

std::string SpaceKey(RecordSpace space, std::string_view key);
// The end of a range: where `end` is empty, that of the space.
std::string SpaceEnd(RecordSpace space, std::string_view end);

// There are no deletions of ranges: RocksDB 7.8 as packaged, with its assertions, ends the process
// when the disk fails while such a deletion is in memory (MemTable::ConstructFragmented...). Later
// changes win over earlier ones. The first error is kept until RecordsDb::Write returns it.
class RecordBatch {
 public:
  explicit RecordBatch(size_t bytes_expected = 0) : batch_(bytes_expected) {}

  void Put(RecordSpace space, std::string_view key, std::string_view value);
  // The value in parts, which are copied once.
  void Put(RecordSpace space, std::string_view key, std::span<const rocksdb::Slice> parts);
  void Delete(RecordSpace space, std::string_view key);

  bool empty() const { return batch_.Count() == 0; }

 private:
  friend class RecordsDb;
  void Keep(const rocksdb::Status& status) {
    if (status_.ok()) status_ = status;
  }

  rocksdb::WriteBatch batch_;
  rocksdb::Status status_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_RECORD_BATCH_H_
