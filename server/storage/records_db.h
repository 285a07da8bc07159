// The records of a data directory in RocksDB: numbered writes, syncs that are shared, and recovery
// from a disk that was full or failed.
//
// After an error of the disk RocksDB is closed and opened again, for reading alone while the disk
// cannot be written: its own DB::Resume waits forever for a flush that was due when the error came
// (7.8: a flush that finds work stopped stays queued, but is not counted any more), and the
// assertions of the packaged library do not expect an error in some of its ways.
#ifndef ATTIC_SERVER_STORAGE_RECORDS_DB_H_
#define ATTIC_SERVER_STORAGE_RECORDS_DB_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "rocksdb/db.h"
#include "server/storage/durable_marker.h"
#include "server/storage/group_sync.h"
#include "server/storage/record_batch.h"
#include "server/storage/records_options.h"

namespace attic {

// Thread-safe. Errors are those of DurableStore.
class RecordsDb {
 public:
  // What was lost without being needed to go on; see damage().
  struct Opened {
    std::unique_ptr<RecordsDb> db;
    std::vector<std::string> complaints;  // about DURABLE
  };

  // Opens directory/records, or makes it if `create`. Looks at everything before it changes
  // anything, so that a damaged directory stays as it is.
  //   DATA_LOSS: damaged, or it holds less than was durable; UNAVAILABLE, RESOURCE_EXHAUSTED.
  static absl::StatusOr<Opened> Open(const std::string& directory,
                                     std::shared_ptr<rocksdb::FileSystem> file_system,
                                     uint64_t rows_buffer_bytes, bool create);
  // For reading only.
  struct Examined {
    std::unique_ptr<RecordsDb> db;
    uint64_t held = 0;  // the last write that is there
    DurableMarker::Found durable;
    std::string complaints;  // of RocksDB, about what it left out
  };
  // Opens directory/records as it is and changes nothing. Less than was durable is no error here.
  // Errors as of Open.
  static absl::StatusOr<Examined> OpenToExamine(const std::string& directory,
                                                std::shared_ptr<rocksdb::FileSystem> file_system);
  // Makes everything durable where that is possible.
  ~RecordsDb();
  RecordsDb(const RecordsDb&) = delete;
  RecordsDb& operator=(const RecordsDb&) = delete;

  // All of `batch` or nothing, in the order of the numbers that are returned; not durable yet. Adds
  // to `batch`. After an error it is not there, unless the process ends before another write or
  // sync succeeds: then it may be.
  absl::StatusOr<uint64_t> Write(RecordBatch& batch);
  // Makes every write that returned durable. Calls at the same time share one.
  absl::Status Sync() { return group_sync_.Sync(); }

  // Compares every checksum in one of RocksDB's tables. DATA_LOSS, UNAVAILABLE.
  static absl::Status VerifyTable(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                                  const std::string& path);
  // The paths of all tables in use.
  std::vector<std::string> Tables();
  // The path of the file beside the tables that holds the value of a key; empty when it is not
  // found. Looks through all of them.
  std::string FindValueFile(RecordSpace space, std::string_view key);

  uint64_t last_write() const { return written_.load(std::memory_order_acquire); }
  // Of the last write that was tried, whether it succeeded or not.
  uint64_t last_tried() const { return tried_.load(std::memory_order_acquire); }
  uint64_t durable_write() const { return durable_.load(std::memory_order_acquire); }

  // NOT_FOUND if there is none.
  absl::StatusOr<std::string> Get(RecordSpace space, std::string_view key);
  // Calls visit for the keys in [begin, end) in order, all from `begin` on if `end` is empty, until
  // it returns something else than OK, which is returned.
  absl::Status Scan(
      RecordSpace space, std::string_view begin, std::string_view end,
      const std::function<absl::Status(std::string_view key, std::string_view value)>& visit);
  // The last record in [begin, end), for which visit is called once; or not at all.
  absl::Status Last(
      RecordSpace space, std::string_view begin, std::string_view end,
      const std::function<absl::Status(std::string_view key, std::string_view value)>& visit);

 private:
  class ErrorListener;
  class Turn;
  class Use;

  RecordsDb(const std::string& directory, std::shared_ptr<rocksdb::FileSystem> file_system,
            uint64_t rows_buffer_bytes);

  rocksdb::Status OpenRocksDb(bool create, bool read_only);
  void CloseRocksDb();
  absl::StatusOr<uint64_t> ReadWriteCounter();
  absl::Status CheckDurable(std::vector<std::string>& complaints);
  absl::Status SyncOnce();
  // Opens RocksDB again, under a Turn. All that was written is durable when it returns OK. After an
  // error there is still something to read, if the disk can be read.
  absl::Status Recover();
  absl::Status Reopen(const absl::Status& probed);
  // Starts a new log and writes what is in memory to a file, under a Turn, when there is enough.
  void FlushIfFull(size_t bytes_written);
  // Whether the disk can be written at all.
  absl::Status Probe();
  absl::Status Failed(const rocksdb::Status& status) const;

  const std::string directory_;
  const std::string path_;  // of the records
  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const uint64_t rows_buffer_bytes_;
  const std::unique_ptr<rocksdb::Env> env_;
  const std::shared_ptr<ComplaintLogger> logger_;
  const std::shared_ptr<ErrorListener> listener_;
  DurableMarker marker_;  // used by SyncOnce, and before and after all others
  GroupSync group_sync_;

  bool examining_ = false;           // constant once opened
  std::unique_ptr<rocksdb::DB> db_;  // changed by Reopen, while nobody uses it; null: unreadable

  Mutex use_mutex_;
  CondVar use_changed_;
  uint64_t uses_ ATTIC_GUARDED_BY(use_mutex_) = 0;
  bool reopening_ ATTIC_GUARDED_BY(use_mutex_) = false;

  // Writes take turns: their numbers must be in the order of RocksDB's log.
  Mutex turn_mutex_;
  CondVar turn_over_;
  uint64_t turns_taken_ ATTIC_GUARDED_BY(turn_mutex_) = 0;
  uint64_t turns_over_ ATTIC_GUARDED_BY(turn_mutex_) = 0;

  std::atomic<uint64_t> tried_{0};  // advanced under a Turn
  uint64_t unflushed_bytes_ = 0;    // used under a Turn
  bool read_only_ = false;          // db_ is; used under a Turn
  bool lost_ = false;               // something written is gone; used under a Turn
  std::atomic<uint64_t> written_{0};
  std::atomic<uint64_t> durable_{0};
  std::atomic<bool> broken_{false};  // Recover must succeed before anything is written or synced
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_RECORDS_DB_H_
