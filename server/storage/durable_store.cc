#include "server/storage/durable_store.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/durable_store_impl.h"
#include "server/storage/record_codec.h"

namespace attic {
namespace {

constexpr char kSessionCounter[] = "session";

}  // namespace

absl::StatusOr<std::unique_ptr<DurableStore>> DurableStore::Open(
    const DurableStoreOptions& options) {
  auto store = std::make_unique<DurableStoreImpl>(options, options.file_system == nullptr
                                                               ? rocksdb::FileSystem::Default()
                                                               : options.file_system);
  ATTIC_RETURN_IF_ERROR(store->Start());
  return store;
}

DurableStoreImpl::DurableStoreImpl(const DurableStoreOptions& options,
                                   std::shared_ptr<rocksdb::FileSystem> file_system)
    : options_(options),
      file_system_(std::move(file_system)),
      cache_(std::make_shared<ClusterCache>(options.cache)) {}

DurableStoreImpl::~DurableStoreImpl() {
  if (registry_ != nullptr) registry_->Close();
  sweeper_.reset();
  segments_.reset();
  rows_.reset();
  db_.reset();  // before the lock is given back
}

absl::Status DurableStoreImpl::Start() {
  ATTIC_ASSIGN_OR_RETURN(directory_, DataDirectory::Open(file_system_, options_.directory));
  ATTIC_ASSIGN_OR_RETURN(RecordsDb::Opened opened,
                         RecordsDb::Open(options_.directory, file_system_,
                                         options_.rows_buffer_bytes, directory_->is_new()));
  db_ = std::move(opened.db);
  if (directory_->is_new()) {
    if (db_->last_write() > 0) {
      return absl::DataLossError(
          absl::StrCat(options_.directory, "/VERSION is missing, but there are records"));
    }
    ATTIC_RETURN_IF_ERROR(directory_->Complete());
  }
  registry_ = std::make_shared<SegmentRegistry>(file_system_, directory_->segments_path());
  rows_ = std::make_unique<RowsRecords>(*db_);
  segments_ = std::make_unique<SegmentRecords>(*db_, registry_, file_system_, cache_,
                                               options_.segment_files);
  ATTIC_RETURN_IF_ERROR(LoadSessions());
  ATTIC_RETURN_IF_ERROR(rows_->CheckAll());
  for (const std::string& complaint : opened.complaints) {
    Report(absl::StrCat(options_.directory, "/DURABLE"), absl::DataLossError(complaint));
  }
  // Where something is wrong, everything stays for those who repair it.
  ATTIC_ASSIGN_OR_RETURN(const std::vector<uint64_t> missing,
                         segments_->Load(/*delete_orphans=*/opened.complaints.empty()));
  for (uint64_t file : missing) {
    Report(registry_->Path(file), absl::DataLossError("it is missing"));
  }
  sweeper_ = std::make_unique<ThreadPool>(1);
  registry_->SetWakeUp(
      [this] { sweeper_->Schedule([this] { registry_->Sweep(db_->durable_write()); }); });
  return absl::OkStatus();
}

absl::Status DurableStoreImpl::LoadSessions() {
  std::vector<uint64_t> keys;
  ATTIC_RETURN_IF_ERROR(
      db_->Scan(RecordSpace::kSessions, {}, {}, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const SessionRecord record, DecodeSession(key, value));
        keys.push_back(record.key);
        return absl::OkStatus();
      }));
  uint64_t last = keys.empty() ? 0 : keys.back();
  const absl::StatusOr<std::string> counter = db_->Get(RecordSpace::kCounters, kSessionCounter);
  if (counter.ok()) {
    ATTIC_ASSIGN_OR_RETURN(const uint64_t counted, DecodeCounter(kSessionCounter, *counter));
    last = std::max(last, counted);
  } else if (!absl::IsNotFound(counter.status())) {
    return counter.status();
  }
  ATTIC_RETURN_IF_ERROR(rows_->RemoveOrphans(keys));
  MutexLock lock(mutex_);
  sessions_.insert(keys.begin(), keys.end());
  last_session_key_ = last;
  return absl::OkStatus();
}

absl::Status DurableStoreImpl::PutSession(const SessionRecord& record, RecordBatch& batch) {
  if (record.attributes.size() > kTextBytesMax || record.session_id.size() > kTextBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a session's attributes have at most ", kTextBytesMax, " bytes"));
  }
  const std::string key = SessionKey(record.key);
  uint64_t last = 0;
  {
    MutexLock lock(mutex_);
    last = last_session_key_;
  }
  batch.Put(RecordSpace::kSessions, key, EncodeSession(key, record));
  batch.Put(RecordSpace::kCounters, kSessionCounter, EncodeCounter(kSessionCounter, last));
  return absl::OkStatus();
}

absl::Status DurableStoreImpl::PutLayers(uint64_t session_key, std::span<const LayerState> layers,
                                         RecordBatch& batch, SegmentRecords::Change& change) {
  for (const LayerState& layer : layers) {
    ATTIC_RETURN_IF_ERROR(SegmentRecords::Check(layer));
    ATTIC_RETURN_IF_ERROR(RowsRecords::Check(layer.rows));
  }
  for (const LayerState& layer : layers) {
    ATTIC_RETURN_IF_ERROR(rows_->Stage(session_key, layer.layer, layer.rows));
    ATTIC_RETURN_IF_ERROR(rows_->Replace(session_key, layer.layer, layer.rows, batch));
    ATTIC_RETURN_IF_ERROR(segments_->Replace(session_key, layer, batch, change));
  }
  return absl::OkStatus();
}

absl::Status DurableStoreImpl::WriteDurably(RecordBatch& batch,
                                            const SegmentRecords::Change& change, bool* written) {
  const absl::StatusOr<uint64_t> number = db_->Write(batch);
  if (!number.ok()) {
    segments_->Abandon(change);
    return number.status();
  }
  *written = true;
  segments_->Commit(change, *number);
  return Sync();
}

absl::Status DurableStoreImpl::CreateSession(SessionRecord& record,
                                             std::span<const LayerState> layers) {
  ATTIC_RETURN_IF_ERROR(RemoveUnwanted());
  {
    MutexLock lock(mutex_);
    record.key = ++last_session_key_;
  }
  RecordBatch batch;
  SegmentRecords::Change change;
  absl::Status status = PutSession(record, batch);
  if (status.ok()) status = PutLayers(record.key, layers, batch, change);
  if (!status.ok()) {
    segments_->Abandon(change);
    return status;
  }
  bool written = false;
  status = WriteDurably(batch, change, &written);
  if (!written) return status;
  MutexLock lock(mutex_);
  (status.ok() ? sessions_ : unwanted_).insert(record.key);
  return status;
}

absl::Status DurableStoreImpl::RemoveUnwanted() {
  std::set<uint64_t> unwanted;
  {
    MutexLock lock(mutex_);
    unwanted = unwanted_;
  }
  for (uint64_t key : unwanted) ATTIC_RETURN_IF_ERROR(RemoveSession(key));
  return absl::OkStatus();
}

absl::Status DurableStoreImpl::UpdateSession(const SessionRecord& record) {
  ATTIC_RETURN_IF_ERROR(CheckSession(record.key));
  RecordBatch batch;
  ATTIC_RETURN_IF_ERROR(PutSession(record, batch));
  bool written = false;
  return WriteDurably(batch, {}, &written);
}

absl::Status DurableStoreImpl::RemoveSession(uint64_t session_key) {
  const std::string begin = SessionKey(session_key);
  RecordBatch batch;
  SegmentRecords::Change change;
  ATTIC_RETURN_IF_ERROR(segments_->RemoveSession(session_key, batch, change));
  ATTIC_RETURN_IF_ERROR(rows_->Remove(begin, EndOfPrefix(begin), batch));
  ATTIC_RETURN_IF_ERROR(db_->Scan(RecordSpace::kHeads, begin, EndOfPrefix(begin),
                                  [&](std::string_view key, std::string_view) {
                                    batch.Delete(RecordSpace::kHeads, key);
                                    return absl::OkStatus();
                                  }));
  batch.Delete(RecordSpace::kSessions, begin);
  bool written = false;
  const absl::Status status = WriteDurably(batch, change, &written);
  if (written) {
    MutexLock lock(mutex_);
    sessions_.erase(session_key);
    unwanted_.erase(session_key);
  }
  return status;
}

absl::StatusOr<std::vector<SessionRecord>> DurableStoreImpl::Sessions() {
  std::vector<SessionRecord> records;
  ATTIC_RETURN_IF_ERROR(
      db_->Scan(RecordSpace::kSessions, {}, {}, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(SessionRecord record, DecodeSession(key, value));
        records.push_back(std::move(record));
        return absl::OkStatus();
      }));
  MutexLock lock(mutex_);
  std::erase_if(records, [this](const SessionRecord& record)
                             ATTIC_REQUIRES(mutex_) { return !sessions_.contains(record.key); });
  return records;
}

absl::StatusOr<uint64_t> DurableStoreImpl::AppendRows(uint64_t session_key, uint32_t layer,
                                                      const RowsRecord& rows) {
  ATTIC_RETURN_IF_ERROR(CheckSession(session_key));
  ATTIC_RETURN_IF_ERROR(RowsRecords::Check({&rows, 1}));
  RecordBatch batch(rows.keys.size() + rows.values.size() + rows.query_sample.size_bytes() + 1024);
  rows_->Append(session_key, layer, rows, batch);
  return db_->Write(batch);
}

absl::Status DurableStoreImpl::Sync() {
  ATTIC_RETURN_IF_ERROR(db_->Sync());
  registry_->Sweep(db_->durable_write());
  return absl::OkStatus();
}

absl::Status DurableStoreImpl::ReadRows(
    uint64_t session_key, uint32_t layer, int64_t begin,
    const std::function<absl::Status(const RowsRecord&)>& visit) {
  ATTIC_RETURN_IF_ERROR(CheckSession(session_key));
  // What the visitor says is no damage.
  bool stopped = false;
  const absl::Status status = rows_->Read(session_key, layer, begin, [&](const RowsRecord& rows) {
    absl::Status visited = visit(rows);
    stopped = !visited.ok();
    return visited;
  });
  if (!stopped) Report(absl::StrCat(options_.directory, "/records"), status);
  return status;
}

absl::StatusOr<SegmentReference> DurableStoreImpl::AddSegment(
    const HeadName& head, const Segment& segment, const VectorArrays& vectors,
    std::shared_ptr<const VectorSource>* source) {
  ATTIC_RETURN_IF_ERROR(CheckSession(head.session_key));
  return segments_->Add(head, segment, vectors, source);
}

absl::StatusOr<std::shared_ptr<const VectorSource>> DurableStoreImpl::SpillSegment(
    const Segment& segment, const VectorArrays& vectors, SegmentReference* reference) {
  return segments_->Spill(segment, vectors, reference);
}

absl::StatusOr<std::vector<SegmentReference>> DurableStoreImpl::Segments(const HeadName& head) {
  return segments_->List(head);
}

absl::StatusOr<SegmentFile> DurableStoreImpl::OpenSegment(const SegmentReference& reference) {
  absl::StatusOr<SegmentFile> file = segments_->Open(reference);
  Report(registry_->Path(reference.file), file.status());
  return file;
}

absl::Status DurableStoreImpl::DropRows(uint64_t session_key, uint32_t layer, int64_t position) {
  ATTIC_RETURN_IF_ERROR(CheckSession(session_key));
  RecordBatch batch;
  ATTIC_RETURN_IF_ERROR(rows_->Drop(session_key, layer, position, batch));
  if (batch.empty()) return absl::OkStatus();
  return db_->Write(batch).status();
}

absl::Status DurableStoreImpl::ReplaceLayers(uint64_t session_key,
                                             std::span<const LayerState> layers) {
  ATTIC_RETURN_IF_ERROR(CheckSession(session_key));
  RecordBatch batch;
  SegmentRecords::Change change;
  const absl::Status status = PutLayers(session_key, layers, batch, change);
  if (!status.ok()) {
    segments_->Abandon(change);
    return status;
  }
  bool written = false;
  return WriteDurably(batch, change, &written);
}

absl::Status DurableStoreImpl::TruncateLayers(uint64_t session_key,
                                              std::span<const LayerCut> cuts) {
  ATTIC_RETURN_IF_ERROR(CheckSession(session_key));
  RecordBatch batch;
  SegmentRecords::Change change;
  for (const LayerCut& cut : cuts) {
    ATTIC_RETURN_IF_ERROR(RowsRecords::Check(cut.rows));
    ATTIC_RETURN_IF_ERROR(rows_->Truncate(session_key, cut, batch));
    ATTIC_RETURN_IF_ERROR(segments_->Truncate(session_key, cut, batch, change));
  }
  if (batch.empty()) return absl::OkStatus();
  bool written = false;
  return WriteDurably(batch, change, &written);
}

absl::Status DurableStoreImpl::PutHeadState(const HeadName& head, const std::string& state) {
  ATTIC_RETURN_IF_ERROR(CheckSession(head.session_key));
  if (state.size() > kTextBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the state of a head has at most ", kTextBytesMax, " bytes"));
  }
  const std::string key = HeadKey(head);
  RecordBatch batch;
  batch.Put(RecordSpace::kHeads, key, EncodeHeadState(key, state));
  return db_->Write(batch).status();
}

absl::StatusOr<std::string> DurableStoreImpl::HeadState(const HeadName& head) {
  const std::string key = HeadKey(head);
  const absl::StatusOr<std::string> value = db_->Get(RecordSpace::kHeads, key);
  if (absl::IsNotFound(value.status())) return std::string();
  ATTIC_RETURN_IF_ERROR(value.status());
  return DecodeHeadState(key, *value);
}

std::vector<DamageReport> DurableStoreImpl::damage() const {
  MutexLock lock(mutex_);
  return damage_;
}

absl::Status DurableStoreImpl::CheckSession(uint64_t session_key) const {
  MutexLock lock(mutex_);
  if (sessions_.contains(session_key)) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("there is no session with key ", session_key));
}

void DurableStoreImpl::Report(const std::string& file, const absl::Status& status) {
  if (!absl::IsDataLoss(status)) return;
  const std::string what(status.message());
  MutexLock lock(mutex_);
  for (const DamageReport& report : damage_) {
    if (report.file == file && report.what == what) return;
  }
  if (damage_.size() < kDamageMax) damage_.push_back({file, what});
}

}  // namespace attic
