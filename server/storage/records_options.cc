#include "server/storage/records_options.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "absl/strings/str_join.h"
#include "rocksdb/cache.h"
#include "rocksdb/table.h"

namespace attic {
namespace {

constexpr size_t kBlockCacheBytes = 32u << 20;
constexpr int kBuffersMax = 6;  // one is filled, the others are being written
constexpr uint64_t kBlobFileBytes = 64u << 20;
constexpr uint64_t kBlobBytesMin = 1024;

void SetFiles(rocksdb::Options& options, uint64_t buffer_bytes) {
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.block_cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  table.format_version = 5;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = rocksdb::kNoCompression;
  // RecordsDb flushes when it has written buffer_bytes; RocksDB must not do so before.
  options.write_buffer_size = 4 * buffer_bytes;
  options.max_write_buffer_number = kBuffersMax;
  // Without rows' data files are tiny, and their number says nothing about work left undone.
  options.level0_file_num_compaction_trigger = 2;
  options.level0_slowdown_writes_trigger = 64;
  options.level0_stop_writes_trigger = 256;
  // Rows' data are written once, seldom read, and dropped nearly in the order in which they came.
  // In blob files they are written twice altogether, log and file, whatever becomes of them:
  // compaction moves their addresses alone. A file goes when all in it was dropped; what is left
  // of old files that are mostly garbage is moved.
  options.enable_blob_files = true;
  options.min_blob_size = kBlobBytesMin;
  options.blob_file_size = kBlobFileBytes;
  options.blob_compression_type = rocksdb::kNoCompression;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 0.25;
  options.blob_garbage_collection_force_threshold = 0.5;
}

}  // namespace

void ComplaintLogger::Logv(const char* format, va_list arguments) {
  char line[512];
  std::vsnprintf(line, sizeof(line), format, arguments);
  MutexLock lock(mutex_);
  if (lines_.size() == kLinesMax) lines_.erase(lines_.begin());
  lines_.emplace_back(line);
}

std::string ComplaintLogger::Complaints() const {
  MutexLock lock(mutex_);
  return absl::StrJoin(lines_, "; ");
}

rocksdb::Options RecordsOptions(rocksdb::Env* env, uint64_t buffer_bytes,
                                const std::shared_ptr<ComplaintLogger>& logger,
                                const std::shared_ptr<rocksdb::EventListener>& listener) {
  rocksdb::Options options;
  SetFiles(options, buffer_bytes);
  options.env = env;
  options.info_log = logger;
  options.paranoid_checks = true;
  // What is recovered is always a prefix of what was written. The other modes go on behind a torn
  // record of an older log, or refuse to open where the loss of power left zeros at the end. That
  // the prefix is long enough, DURABLE says (durable_marker.h).
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  // Closed logs must have the size they had when they were synced.
  options.track_and_verify_wals_in_manifest = true;
  // A log is a new file each time: old records behind its end cannot pass for new ones.
  options.recycle_log_file_num = 0;
  options.manual_wal_flush = false;
  options.max_total_wal_size = buffer_bytes;  // which is here the room set aside for a log
  // What was recovered is on disk before anything else is written.
  options.avoid_flush_during_recovery = false;
  // The kernel starts writing early: a sync then has little left to wait for.
  options.bytes_per_sync = 1u << 20;
  options.wal_bytes_per_sync = 1u << 20;
  options.max_background_jobs = 4;
  options.max_file_opening_threads = 2;  // started anew by every open
  // ~RecordsDb does it, where it can succeed.
  options.avoid_flush_during_shutdown = true;
  // RecordsDb::Recover does it, when somebody writes again.
  options.max_bgerror_resume_count = 0;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.listeners = {listener};
  return options;
}

}  // namespace attic
