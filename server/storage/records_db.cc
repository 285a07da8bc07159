#include "server/storage/records_db.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "rocksdb/file_system.h"
#include "rocksdb/metadata.h"
#include "rocksdb/sst_file_reader.h"
#include "server/storage/random_access_file.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

constexpr char kWriteCounter[] = "write";
constexpr char kRecoverCounter[] = "recover";
constexpr size_t kSearchBytes = 1u << 20;  // of a file, read at a time

rocksdb::Slice SliceOf(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ViewOf(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

}  // namespace

// Notes that an error stopped RocksDB, and keeps it recoverable: RocksDB calls every error of the
// disk but a full one fatal, though its own recovery (memtables flushed, a new log, a new manifest)
// needs nothing of the files that failed.
class RecordsDb::ErrorListener final : public rocksdb::EventListener {
 public:
  explicit ErrorListener(std::atomic<bool>& broken) : broken_(broken) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) override {
    broken_.store(true, std::memory_order_release);
    if (error->IsIOError() && error->severity() > rocksdb::Status::kHardError) {
      *error = rocksdb::Status(*error, rocksdb::Status::kHardError);
    }
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;  // it would wait for room for seconds, and refuse ours meanwhile
  }

 private:
  std::atomic<bool>& broken_;
};

class RecordsDb::Turn {
 public:
  explicit Turn(RecordsDb& db) : db_(db) {
    MutexLock lock(db_.turn_mutex_);
    const uint64_t mine = db_.turns_taken_++;
    while (db_.turns_over_ != mine) db_.turn_over_.Wait(db_.turn_mutex_);
  }
  ~Turn() {
    MutexLock lock(db_.turn_mutex_);
    ++db_.turns_over_;
    db_.turn_over_.NotifyAll();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  RecordsDb& db_;
};

RecordsDb::RecordsDb(const std::string& directory, std::shared_ptr<rocksdb::FileSystem> file_system,
                     uint64_t rows_buffer_bytes)
    : directory_(directory),
      path_(absl::StrCat(directory, "/records")),
      file_system_(std::move(file_system)),
      rows_buffer_bytes_(rows_buffer_bytes),
      env_(rocksdb::NewCompositeEnv(file_system_)),
      logger_(std::make_shared<ComplaintLogger>()),
      listener_(std::make_shared<ErrorListener>(broken_)),
      marker_(*file_system_, directory),
      group_sync_([this] { return SyncOnce(); }) {}

absl::StatusOr<RecordsDb::Opened> RecordsDb::Open(const std::string& directory,
                                                  std::shared_ptr<rocksdb::FileSystem> file_system,
                                                  uint64_t rows_buffer_bytes, bool create) {
  Opened opened;
  opened.db.reset(new RecordsDb(directory, std::move(file_system), rows_buffer_bytes));
  RecordsDb& db = *opened.db;
  if (!create) {
    ATTIC_RETURN_IF_ERROR(db.Failed(db.OpenRocksDb(false, /*read_only=*/true)));
    const absl::Status checked = db.CheckDurable(opened.complaints);
    db.CloseRocksDb();
    ATTIC_RETURN_IF_ERROR(checked);
  }
  ATTIC_RETURN_IF_ERROR(db.Failed(db.OpenRocksDb(create, /*read_only=*/false)));
  ATTIC_ASSIGN_OR_RETURN(const uint64_t held, db.ReadWriteCounter());
  ATTIC_RETURN_IF_ERROR(db.marker_.Start(held));
  db.tried_ = held;
  db.written_ = held;
  db.durable_ = held;
  return opened;
}

absl::StatusOr<RecordsDb::Examined> RecordsDb::OpenToExamine(
    const std::string& directory, std::shared_ptr<rocksdb::FileSystem> file_system) {
  constexpr uint64_t kRowsBufferBytes = 64u << 20;  // without effect: nothing is written
  Examined examined;
  examined.db.reset(new RecordsDb(directory, std::move(file_system), kRowsBufferBytes));
  RecordsDb& db = *examined.db;
  db.read_only_ = true;
  const absl::Status opened = db.Failed(db.OpenRocksDb(false, /*read_only=*/true));
  examined.complaints = db.logger_->Complaints();
  if (!opened.ok()) {
    return absl::Status(
        opened.code(),
        absl::StrCat(std::string(opened.message()),
                     examined.complaints.empty() ? "" : "; RocksDB: ", examined.complaints));
  }
  ATTIC_ASSIGN_OR_RETURN(examined.held, db.ReadWriteCounter());
  ATTIC_ASSIGN_OR_RETURN(examined.durable, DurableMarker::Read(*db.file_system_, directory));
  return examined;
}

RecordsDb::~RecordsDb() {
  if (db_ == nullptr) return;
  if (read_only_) {
    CloseRocksDb();
    return;
  }
  // Flushed, so that nothing is left in logs, which are read twice by the next Open.
  if (Sync().ok()) {
    marker_.Sync().IgnoreError();
    db_->Flush(rocksdb::FlushOptions(), handles_).PermitUncheckedError();
  }
  CloseRocksDb();
}

rocksdb::Status RecordsDb::OpenRocksDb(bool create, bool read_only) {
  rocksdb::DBOptions options = RecordsOptions(env_.get(), logger_, listener_);
  options.create_if_missing = create;
  options.create_missing_column_families = create;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      read_only
          ? rocksdb::DB::OpenForReadOnly(options, path_, RecordFamilies(rows_buffer_bytes_),
                                         &handles_, &db)
          : rocksdb::DB::Open(options, path_, RecordFamilies(rows_buffer_bytes_), &handles_, &db);
  if (status.ok()) {
    ATTIC_CHECK(handles_.size() == kRecordFamilies);
    db_.reset(db);
  }
  broken_ = false;
  return status;
}

void RecordsDb::CloseRocksDb() {
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  handles_.clear();
  db_->Close().PermitUncheckedError();
  db_.reset();
}

absl::StatusOr<uint64_t> RecordsDb::ReadWriteCounter() {
  rocksdb::PinnableSlice value;
  const absl::Status found = Get(RecordFamily::kCounters, kWriteCounter, &value);
  if (absl::IsNotFound(found)) return 0;
  ATTIC_RETURN_IF_ERROR(found);
  return DecodeCounter(kWriteCounter, ViewOf(value));
}

absl::Status RecordsDb::CheckDurable(std::vector<std::string>& complaints) {
  ATTIC_ASSIGN_OR_RETURN(const uint64_t held, ReadWriteCounter());
  ATTIC_ASSIGN_OR_RETURN(const DurableMarker::Found found,
                         DurableMarker::Read(*file_system_, directory_));
  if (found.missing) complaints.push_back("it is missing: what is durable cannot be checked");
  if (found.damaged) complaints.push_back("it is damaged: what is durable cannot be checked");
  if (held < found.number) {
    return absl::DataLossError(
        absl::StrCat(path_, " holds writes up to ", held, ", but those up to ", found.number,
                     " were durable; without ", directory_,
                     "/DURABLE it opens with what there is. RocksDB: ", logger_->Complaints()));
  }
  return absl::OkStatus();
}

absl::Status RecordsDb::Failed(const rocksdb::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  absl::Status failed = FromRocksDb(status, path_);
  // A file of RocksDB that is not there is lost: only files of ours may be absent.
  if (absl::IsNotFound(failed) && !status.IsNotFound()) {
    failed = absl::DataLossError(failed.message());
  }
  return failed;
}

absl::StatusOr<uint64_t> RecordsDb::Write(rocksdb::WriteBatch& batch) {
  Turn turn(*this);
  const uint64_t number = tried_.fetch_add(1) + 1;
  rocksdb::Status status = batch.Put(family(RecordFamily::kCounters), kWriteCounter,
                                     EncodeCounter(kWriteCounter, number));
  ATTIC_RETURN_IF_ERROR(Failed(status));
  // Tried twice: the error may be an old one, whose cause is gone.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (broken_.load(std::memory_order_acquire)) {
      status = Recover();
      if (!status.ok()) return Failed(status);
    }
    status = db_->Write(rocksdb::WriteOptions(), &batch);
    if (status.ok()) {
      written_.store(number, std::memory_order_release);
      return number;
    }
    broken_.store(true, std::memory_order_release);
  }
  return Failed(status);
}

absl::Status RecordsDb::SyncOnce() {
  uint64_t target = last_write();
  rocksdb::Status status;
  const bool broken = broken_.load(std::memory_order_acquire);
  if (!broken) {
    if (target == durable_write()) return absl::OkStatus();
    status = db_->SyncWAL();
  }
  // A log whose sync failed is never synced again: the kernel may have dropped what it could not
  // write, and would say OK. Recovery writes all of it to other files.
  if (broken || !status.ok()) {
    Turn turn(*this);
    broken_.store(true, std::memory_order_release);
    status = Recover();
    target = last_write();
  }
  ATTIC_RETURN_IF_ERROR(Failed(status));
  durable_.store(target, std::memory_order_release);
  marker_.Advance(target);
  return absl::OkStatus();
}

rocksdb::Status RecordsDb::Recover() {
  broken_.store(false, std::memory_order_release);
  // Flushes what is in memory and starts a new log. But not when nothing is in memory: then the log
  // that failed would stay, so there has to be something; and then once more.
  rocksdb::Status status = db_->Resume();
  if (status.ok()) {
    rocksdb::WriteOptions in_memory;
    in_memory.disableWAL = true;
    status = db_->Put(in_memory, family(RecordFamily::kCounters), kRecoverCounter,
                      EncodeCounter(kRecoverCounter, last_tried()));
  }
  if (status.ok()) status = db_->Resume();
  if (!status.ok()) broken_.store(true, std::memory_order_release);
  return status;
}

absl::Status RecordsDb::Get(RecordFamily family, std::string_view key,
                            rocksdb::PinnableSlice* value) {
  rocksdb::ReadOptions options;
  options.fill_cache = family != RecordFamily::kRowsData;
  return Failed(db_->Get(options, this->family(family), SliceOf(key), value));
}

absl::Status RecordsDb::Scan(
    RecordFamily family, std::string_view begin, std::string_view end,
    const std::function<absl::Status(std::string_view key, std::string_view value)>& visit) {
  const rocksdb::Slice upper = SliceOf(end);
  rocksdb::ReadOptions options;
  if (!end.empty()) options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> iterator(
      db_->NewIterator(options, this->family(family)));
  for (iterator->Seek(SliceOf(begin)); iterator->Valid(); iterator->Next()) {
    ATTIC_RETURN_IF_ERROR(visit(ViewOf(iterator->key()), ViewOf(iterator->value())));
  }
  return Failed(iterator->status());
}

absl::Status RecordsDb::Last(
    RecordFamily family, std::string_view begin, std::string_view end,
    const std::function<absl::Status(std::string_view key, std::string_view value)>& visit) {
  const rocksdb::Slice lower = SliceOf(begin);
  const rocksdb::Slice upper = SliceOf(end);
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &lower;
  if (!end.empty()) options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> iterator(
      db_->NewIterator(options, this->family(family)));
  iterator->SeekToLast();
  if (iterator->Valid()) return visit(ViewOf(iterator->key()), ViewOf(iterator->value()));
  return Failed(iterator->status());
}

absl::Status RecordsDb::VerifyTable(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                                    const std::string& path) {
  const std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(file_system);
  rocksdb::Options options;
  options.env = env.get();
  rocksdb::SstFileReader reader(options);
  rocksdb::Status status = reader.Open(path);
  if (status.ok()) status = reader.VerifyChecksum();
  return FromRocksDb(status, path);
}

std::vector<std::string> RecordsDb::Tables() const {
  std::vector<rocksdb::LiveFileMetaData> files;
  db_->GetLiveFilesMetaData(&files);
  std::vector<std::string> paths;
  for (const rocksdb::LiveFileMetaData& file : files) {
    paths.push_back(absl::StrCat(file.db_path, file.name));
  }
  return paths;
}

std::string RecordsDb::FindValueFile(RecordFamily family, std::string_view key) const {
  rocksdb::ColumnFamilyMetaData family_files;
  db_->GetColumnFamilyMetaData(this->family(family), &family_files);
  std::string buffer(kSearchBytes + key.size(), '\0');
  for (const rocksdb::BlobMetaData& blob : family_files.blob_files) {
    const std::string path = absl::StrCat(path_, "/", blob.blob_file_name);
    const auto file = RandomAccessFile::Open(*file_system_, path, /*direct=*/false);
    if (!file.ok()) return path;
    // Pieces overlap by the length of the key.
    for (uint64_t begin = 0; begin < (*file)->bytes(); begin += kSearchBytes) {
      const size_t bytes = std::min<uint64_t>(buffer.size(), (*file)->bytes() - begin);
      if (!(*file)->Read(begin, std::as_writable_bytes(std::span(buffer).first(bytes))).ok()) {
        return path;
      }
      if (std::string_view(buffer).substr(0, bytes).find(key) != std::string_view::npos) {
        return path;
      }
    }
  }
  return {};
}

}  // namespace attic
