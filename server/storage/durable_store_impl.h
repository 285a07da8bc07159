// DurableStore over RocksDB and segment files.
#ifndef ATTIC_SERVER_STORAGE_DURABLE_STORE_IMPL_H_
#define ATTIC_SERVER_STORAGE_DURABLE_STORE_IMPL_H_

#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/thread_pool.h"
#include "rocksdb/file_system.h"
#include "server/storage/data_directory.h"
#include "server/storage/durable_store.h"
#include "server/storage/records_db.h"
#include "server/storage/rows_records.h"
#include "server/storage/segment_records.h"
#include "server/storage/segment_registry.h"

namespace attic {

class DurableStoreImpl final : public DurableStore {
 public:
  static constexpr size_t kDamageMax = 1024;          // reports kept; the first ones
  static constexpr size_t kTextBytesMax = 64u << 20;  // attributes, the state of a head

  DurableStoreImpl(const DurableStoreOptions& options,
                   std::shared_ptr<rocksdb::FileSystem> file_system);
  ~DurableStoreImpl() override;

  // Before all else; errors as DurableStore::Open.
  absl::Status Start();

  absl::Status CreateSession(SessionRecord& record, std::span<const LayerState> layers) override;
  absl::Status UpdateSession(const SessionRecord& record) override;
  absl::Status RemoveSession(uint64_t session_key) override;
  absl::StatusOr<std::vector<SessionRecord>> Sessions() override;

  absl::StatusOr<uint64_t> AppendRows(uint64_t session_key, uint32_t layer,
                                      const RowsRecord& rows) override;
  absl::Status Sync() override;
  uint64_t durable_write() const override { return db_->durable_write(); }
  absl::Status ReadRows(uint64_t session_key, uint32_t layer, int64_t begin,
                        const std::function<absl::Status(const RowsRecord&)>& visit) override;

  absl::StatusOr<SegmentReference> AddSegment(const HeadName& head, const Segment& segment,
                                              const VectorArrays& vectors,
                                              std::shared_ptr<const VectorSource>* source) override;
  absl::StatusOr<std::shared_ptr<const VectorSource>> SpillSegment(
      const Segment& segment, const VectorArrays& vectors, SegmentReference* reference) override;
  absl::StatusOr<std::vector<SegmentReference>> Segments(const HeadName& head) override;
  absl::StatusOr<SegmentFile> OpenSegment(const SegmentReference& reference) override;
  absl::Status DropRows(uint64_t session_key, uint32_t layer, int64_t position) override;

  absl::Status ReplaceLayers(uint64_t session_key, std::span<const LayerState> layers) override;

  absl::Status TruncateLayers(uint64_t session_key, std::span<const LayerCut> cuts) override;

  absl::Status PutHeadState(const HeadName& head, const std::string& state) override;
  absl::StatusOr<std::string> HeadState(const HeadName& head) override;

  std::vector<DamageReport> damage() const override;
  void SetCacheBytes(uint64_t bytes_max) override { cache_->SetCapacity(bytes_max); }
  ClusterCacheUse cache_use() const override { return cache_->use(); }
  uint64_t disk_bytes() const override { return registry_->disk_bytes(); }

 private:
  absl::Status LoadSessions();
  absl::Status PutSession(const SessionRecord& record, RecordBatch& batch);
  // Adds what the layers are to hold; their data are written at once.
  absl::Status PutLayers(uint64_t session_key, std::span<const LayerState> layers,
                         RecordBatch& batch, SegmentRecords::Change& change);
  // Writes and syncs. `written` is set once the batch is in effect, durable or not.
  absl::Status WriteDurably(RecordBatch& batch, const SegmentRecords::Change& change,
                            bool* written);
  absl::Status RemoveUnwanted();
  absl::Status CheckSession(uint64_t session_key) const;
  void Report(const std::string& file, const absl::Status& status);

  const DurableStoreOptions options_;
  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::shared_ptr<ClusterCache> cache_;

  // Set by Start, in this order.
  std::unique_ptr<DataDirectory> directory_;
  std::unique_ptr<RecordsDb> db_;
  std::shared_ptr<SegmentRegistry> registry_;
  std::unique_ptr<RowsRecords> rows_;
  std::unique_ptr<SegmentRecords> segments_;
  std::unique_ptr<ThreadPool> sweeper_;  // deletes files after their last holder

  mutable Mutex mutex_;
  std::set<uint64_t> sessions_ ATTIC_GUARDED_BY(mutex_);
  // Created, but the caller was told otherwise; removed when the disk works again.
  std::set<uint64_t> unwanted_ ATTIC_GUARDED_BY(mutex_);
  uint64_t last_session_key_ ATTIC_GUARDED_BY(mutex_) = 0;
  std::vector<DamageReport> damage_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_DURABLE_STORE_IMPL_H_
