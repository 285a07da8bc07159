// The records of rows: what a layer holds behind its segments.
#ifndef ATTIC_SERVER_STORAGE_ROWS_RECORDS_H_
#define ATTIC_SERVER_STORAGE_ROWS_RECORDS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "server/storage/durable_store.h"
#include "server/storage/record_batch.h"
#include "server/storage/records_db.h"

namespace attic {

// A record of rows is two: a small one, by position, and its data, which it names by their
// checksum. Functions that take a batch add to it what is to be done. Thread-safe as RecordsDb is.
class RowsRecords {
 public:
  explicit RowsRecords(RecordsDb& db) : db_(db) {}

  // INVALID_ARGUMENT if rows cannot be recorded, or do not follow each other.
  static absl::Status Check(std::span<const RowsRecord> rows);

  void Append(uint64_t session_key, uint32_t layer, const RowsRecord& rows, RecordBatch& batch);

  // Writes the data of rows of a layer, one write for each that is not there yet. Nothing refers to
  // them until the batch made by Replace is written.
  absl::Status Stage(uint64_t session_key, uint32_t layer, std::span<const RowsRecord> rows);
  // The layer holds these rows, which were staged, and no other ones.
  absl::Status Replace(uint64_t session_key, uint32_t layer, std::span<const RowsRecord> rows,
                       RecordBatch& batch);
  // Forgets rows from cut.position on, and records cut.rows before those that stay, as far as none
  // of these holds them. Data that are new are written at once.
  absl::Status Truncate(uint64_t session_key, const LayerCut& cut, RecordBatch& batch);
  // Forgets the rows with keys in [begin, end).
  absl::Status Remove(const std::string& begin, const std::string& end, RecordBatch& batch);
  // Forgets the pieces of a layer that end at `position` or before. Adds nothing if there is none.
  absl::Status Drop(uint64_t session_key, uint32_t layer, int64_t position, RecordBatch& batch);

  // As DurableStore::ReadRows.
  absl::Status Read(uint64_t session_key, uint32_t layer, int64_t begin,
                    const std::function<absl::Status(const RowsRecord&)>& visit);

  // Looks at all records, but not at their data.
  absl::Status CheckAll();
  // Forgets data of sessions that do not exist, which were staged before a crash or an error.
  // `session_keys` ascend.
  absl::Status RemoveOrphans(std::span<const uint64_t> session_keys);

 private:
  // The piece that holds rows on both sides of `position` is replaced by what lies before it.
  absl::Status CutPiece(uint64_t session_key, uint32_t layer, int64_t position, RecordBatch& batch);

  RecordsDb& db_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_ROWS_RECORDS_H_
