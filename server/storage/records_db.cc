#include "server/storage/records_db.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "rocksdb/file_system.h"
#include "rocksdb/metadata.h"
#include "rocksdb/sst_file_reader.h"
#include "server/storage/log_file_system.h"
#include "server/storage/random_access_file.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

constexpr char kWriteCounter[] = "write";
constexpr size_t kProbeBytes = 64u << 10;
constexpr size_t kSearchBytes = 1u << 20;  // of a file, read at a time

std::string_view ViewOf(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

}  // namespace

// Notes that an error stopped RocksDB, which is left alone with it.
class RecordsDb::ErrorListener final : public rocksdb::EventListener {
 public:
  explicit ErrorListener(std::atomic<bool>& broken) : broken_(broken) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status*) override {
    broken_.store(true, std::memory_order_release);
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }

 private:
  std::atomic<bool>& broken_;
};

// Keeps db_ as it is.
class RecordsDb::Use {
 public:
  explicit Use(RecordsDb& db) : db_(db) {
    MutexLock lock(db_.use_mutex_);
    while (db_.reopening_) db_.use_changed_.Wait(db_.use_mutex_);
    ++db_.uses_;
  }
  ~Use() {
    MutexLock lock(db_.use_mutex_);
    if (--db_.uses_ == 0) db_.use_changed_.NotifyAll();
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  absl::Status status() const {
    if (db_.db_ != nullptr) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(db_.path_, " could not be opened again"));
  }

 private:
  RecordsDb& db_;
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
      env_(rocksdb::NewCompositeEnv(std::make_shared<LogFileSystem>(file_system_))),
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
  db.examining_ = true;
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
  if (examining_) {
    CloseRocksDb();
    return;
  }
  // Flushed, so that nothing is left in logs, which are read twice by the next Open.
  if (Sync().ok() && !broken_) {
    marker_.Sync().IgnoreError();
    db_->Flush(rocksdb::FlushOptions()).PermitUncheckedError();
  }
  CloseRocksDb();
}

rocksdb::Status RecordsDb::OpenRocksDb(bool create, bool read_only) {
  rocksdb::Options options = RecordsOptions(env_.get(), rows_buffer_bytes_, logger_, listener_);
  options.create_if_missing = create;
  rocksdb::DB* db = nullptr;
  rocksdb::Status status;
  if (read_only) {
    // With the families given. Without them RocksDB takes a way of its own where everything is
    // compacted, on which it does not find values in blob files.
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    status = rocksdb::DB::OpenForReadOnly(
        options, path_, {{rocksdb::kDefaultColumnFamilyName, options}}, &handles, &db);
    for (rocksdb::ColumnFamilyHandle* handle : handles) {
      db->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
    }
  } else {
    status = rocksdb::DB::Open(options, path_, &db);
  }
  if (status.ok()) db_.reset(db);
  return status;
}

void RecordsDb::CloseRocksDb() {
  if (db_ == nullptr) return;
  db_->Close().PermitUncheckedError();
  db_.reset();
}

absl::StatusOr<uint64_t> RecordsDb::ReadWriteCounter() {
  std::string value;
  const rocksdb::Status found =
      db_->Get(rocksdb::ReadOptions(), SpaceKey(RecordSpace::kCounters, kWriteCounter), &value);
  if (found.IsNotFound()) return 0;
  ATTIC_RETURN_IF_ERROR(Failed(found));
  return DecodeCounter(kWriteCounter, value);
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

absl::StatusOr<uint64_t> RecordsDb::Write(RecordBatch& batch) {
  Turn turn(*this);
  if (broken_.load(std::memory_order_acquire)) ATTIC_RETURN_IF_ERROR(Recover());
  const uint64_t number = tried_.fetch_add(1) + 1;
  batch.Put(RecordSpace::kCounters, kWriteCounter, EncodeCounter(kWriteCounter, number));
  ATTIC_RETURN_IF_ERROR(Failed(batch.status_));
  const rocksdb::Status status = db_->Write(rocksdb::WriteOptions(), &batch.batch_);
  if (status.ok()) {
    written_.store(number, std::memory_order_release);
    FlushIfFull(batch.batch_.GetDataSize());
    return number;
  }
  // Only the log knows whether the write is in it. Opened again, RocksDB has read the log.
  broken_.store(true, std::memory_order_release);
  const absl::Status reopened = Recover();
  if (last_write() == number) return number;
  // The error may have been an old one, whose cause is gone.
  if (reopened.ok() && db_->Write(rocksdb::WriteOptions(), &batch.batch_).ok()) {
    written_.store(number, std::memory_order_release);
    return number;
  }
  // What is in the way now says more than an error of RocksDB's, which may only say that there was
  // one before.
  if (!reopened.ok()) return reopened;
  broken_.store(true, std::memory_order_release);
  return Failed(status);
}

void RecordsDb::FlushIfFull(size_t bytes_written) {
  unflushed_bytes_ += bytes_written;
  if (unflushed_bytes_ < rows_buffer_bytes_) return;
  unflushed_bytes_ = 0;
  // The log must be durable before there is another one: were its end lost and not the beginning of
  // the next, recovery would go on with that, and what came between would be missing unseen.
  rocksdb::FlushOptions options;
  options.wait = false;
  options.allow_write_stall = true;  // the next write waits, if any has to
  rocksdb::Status status = db_->SyncWAL();
  if (status.ok()) status = db_->Flush(options);
  if (!status.ok()) broken_.store(true, std::memory_order_release);
}

absl::Status RecordsDb::SyncOnce() {
  uint64_t target = 0;
  rocksdb::Status status;
  bool broken = false;
  {
    // Until the sync is under way: see log_file_system.h.
    std::optional<Turn> turn(std::in_place, *this);
    target = last_write();
    broken = broken_.load(std::memory_order_acquire);
    if (!broken) {
      if (target == durable_write()) return absl::OkStatus();
      Use use(*this);
      ATTIC_RETURN_IF_ERROR(use.status());
      LogFileSystem::SyncScope scope([&turn] { turn.reset(); });
      status = db_->SyncWAL();
    }
  }
  // A log whose sync failed is never synced again: the kernel may have dropped what it could not
  // write, and would say OK. Recovery writes all of it to other files.
  if (broken || !status.ok()) {
    Turn turn(*this);
    broken_.store(true, std::memory_order_release);
    ATTIC_RETURN_IF_ERROR(Recover());
    target = last_write();
  }
  durable_.store(target, std::memory_order_release);
  marker_.Advance(target);
  return absl::OkStatus();
}

absl::Status RecordsDb::Probe() {
  const std::string path = absl::StrCat(directory_, "/PROBE");
  std::unique_ptr<rocksdb::FSWritableFile> file;
  rocksdb::IOStatus status =
      file_system_->NewWritableFile(path, rocksdb::FileOptions(), &file, nullptr);
  if (status.ok()) {
    status = file->Append(std::string(kProbeBytes, '\0'), rocksdb::IOOptions(), nullptr);
  }
  if (status.ok()) status = file->Sync(rocksdb::IOOptions(), nullptr);
  if (file != nullptr) file->Close(rocksdb::IOOptions(), nullptr).PermitUncheckedError();
  file_system_->DeleteFile(path, rocksdb::IOOptions(), nullptr).PermitUncheckedError();
  return FromRocksDb(status, directory_);
}

absl::Status RecordsDb::Recover() {
  if (lost_) {
    return absl::DataLossError(absl::StrCat(
        path_, ": writes that were not durable are gone; the store must be restarted"));
  }
  // Opening reads all logs: not worth it while nothing can be written. But what an error left half
  // done is in the way of readers, too.
  const absl::Status probed = Probe();
  {
    MutexLock lock(use_mutex_);
    reopening_ = true;
    while (uses_ > 0) use_changed_.Wait(use_mutex_);
  }
  const absl::Status status = Reopen(probed);
  MutexLock lock(use_mutex_);
  reopening_ = false;
  use_changed_.NotifyAll();
  return status;
}

absl::Status RecordsDb::Reopen(const absl::Status& probed) {
  absl::Status status = probed;
  if (read_only_ && !probed.ok()) return probed;
  CloseRocksDb();
  read_only_ = false;
  unflushed_bytes_ = 0;
  if (status.ok()) {
    broken_.store(false, std::memory_order_release);
    status = Failed(OpenRocksDb(/*create=*/false, /*read_only=*/false));
  }
  if (!status.ok()) {
    broken_.store(true, std::memory_order_release);
    read_only_ = OpenRocksDb(/*create=*/false, /*read_only=*/true).ok();
  }
  if (db_ == nullptr) return status;
  const absl::StatusOr<uint64_t> held = ReadWriteCounter();
  if (!held.ok() || *held < last_write()) {
    lost_ = true;
    broken_.store(true, std::memory_order_release);
    return held.ok() ? absl::DataLossError(absl::StrCat(path_, ": writes are gone"))
                     : held.status();
  }
  written_.store(*held, std::memory_order_release);
  return status;
}

absl::StatusOr<std::string> RecordsDb::Get(RecordSpace space, std::string_view key) {
  Use use(*this);
  ATTIC_RETURN_IF_ERROR(use.status());
  std::string value;
  ATTIC_RETURN_IF_ERROR(Failed(db_->Get(rocksdb::ReadOptions(), SpaceKey(space, key), &value)));
  return value;
}

absl::Status RecordsDb::Scan(
    RecordSpace space, std::string_view begin, std::string_view end,
    const std::function<absl::Status(std::string_view key, std::string_view value)>& visit) {
  Use use(*this);
  ATTIC_RETURN_IF_ERROR(use.status());
  const std::string last = SpaceEnd(space, end);
  const rocksdb::Slice upper = last;
  rocksdb::ReadOptions options;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> iterator(db_->NewIterator(options));
  for (iterator->Seek(SpaceKey(space, begin)); iterator->Valid(); iterator->Next()) {
    ATTIC_RETURN_IF_ERROR(visit(ViewOf(iterator->key()).substr(1), ViewOf(iterator->value())));
  }
  return Failed(iterator->status());
}

absl::Status RecordsDb::Last(
    RecordSpace space, std::string_view begin, std::string_view end,
    const std::function<absl::Status(std::string_view key, std::string_view value)>& visit) {
  Use use(*this);
  ATTIC_RETURN_IF_ERROR(use.status());
  const std::string first = SpaceKey(space, begin);
  const std::string last = SpaceEnd(space, end);
  const rocksdb::Slice lower = first;
  const rocksdb::Slice upper = last;
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> iterator(db_->NewIterator(options));
  iterator->SeekToLast();
  if (iterator->Valid()) {
    return visit(ViewOf(iterator->key()).substr(1), ViewOf(iterator->value()));
  }
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

std::vector<std::string> RecordsDb::Tables() {
  Use use(*this);
  if (!use.status().ok()) return {};
  std::vector<rocksdb::LiveFileMetaData> files;
  db_->GetLiveFilesMetaData(&files);
  std::vector<std::string> paths;
  for (const rocksdb::LiveFileMetaData& file : files) {
    paths.push_back(absl::StrCat(file.db_path, file.name));
  }
  return paths;
}

std::string RecordsDb::FindValueFile(RecordSpace space, std::string_view key) {
  Use use(*this);
  if (!use.status().ok()) return {};
  const std::string stored = SpaceKey(space, key);
  rocksdb::ColumnFamilyMetaData all_files;
  db_->GetColumnFamilyMetaData(&all_files);
  std::string buffer(kSearchBytes + stored.size(), '\0');
  for (const rocksdb::BlobMetaData& blob : all_files.blob_files) {
    const std::string path = absl::StrCat(path_, "/", blob.blob_file_name);
    const auto file = RandomAccessFile::Open(*file_system_, path, /*direct=*/false);
    if (!file.ok()) return path;
    // Pieces overlap by the length of the key.
    for (uint64_t begin = 0; begin < (*file)->bytes(); begin += kSearchBytes) {
      const size_t bytes = std::min<uint64_t>(buffer.size(), (*file)->bytes() - begin);
      if (!(*file)->Read(begin, std::as_writable_bytes(std::span(buffer).first(bytes))).ok()) {
        return path;
      }
      if (std::string_view(buffer).substr(0, bytes).find(stored) != std::string_view::npos) {
        return path;
      }
    }
  }
  return {};
}

}  // namespace attic
