// The records of segments: which files make up a head.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_RECORDS_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_RECORDS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/durable_store.h"
#include "server/storage/record_batch.h"
#include "server/storage/records_db.h"
#include "server/storage/segment_registry.h"

namespace attic {

// Thread-safe as DurableStore is. Functions that take a batch add to it what is to be done.
class SegmentRecords {
 public:
  SegmentRecords(RecordsDb& db, std::shared_ptr<SegmentRegistry> registry,
                 std::shared_ptr<rocksdb::FileSystem> file_system,
                 std::shared_ptr<ClusterCache> cache, const SegmentFileOptions& files);

  // References that a batch adds and takes away. Commit or Abandon ends it.
  struct Change {
    std::vector<uint64_t> added;
    std::vector<uint64_t> dropped;
  };

  // Reads all references, and deletes files that have none if `delete_orphans`. Returns the numbers
  // of files that are missing.
  absl::StatusOr<std::vector<uint64_t>> Load(bool delete_orphans);

  // INVALID_ARGUMENT if segments of a head do not follow each other.
  static absl::Status Check(const LayerState& layer);

  // As the functions of DurableStore.
  absl::StatusOr<SegmentReference> Add(const HeadName& head, const Segment& segment,
                                       const VectorArrays& vectors,
                                       std::shared_ptr<const VectorSource>* source);
  absl::StatusOr<std::shared_ptr<const VectorSource>> Spill(const Segment& segment,
                                                            const VectorArrays& vectors,
                                                            SegmentReference* reference);
  absl::StatusOr<std::vector<SegmentReference>> List(const HeadName& head);
  absl::StatusOr<SegmentFile> Open(const SegmentReference& reference);

  // A layer has the segments of `layer` and no others. NOT_FOUND if a file is not known.
  absl::Status Replace(uint64_t session_key, const LayerState& layer, RecordBatch& batch,
                       Change& change);
  // Heads keep the first of their segments, as many as the cut says.
  absl::Status Truncate(uint64_t session_key, const LayerCut& cut, RecordBatch& batch,
                        Change& change);
  absl::Status RemoveSession(uint64_t session_key, RecordBatch& batch, Change& change);
  void Commit(const Change& change, uint64_t write);
  // The batch was not written, or that failed.
  void Abandon(const Change& change);

 private:
  struct NewFile {
    SegmentReference reference;
    uint64_t identity = 0;
    std::shared_ptr<SegmentRegistry::Hold> hold;
    std::shared_ptr<const VectorSource> source;  // holds the file, too
  };

  absl::StatusOr<NewFile> WriteFile(const Segment& segment, const VectorArrays& vectors);
  absl::Status CheckNext(const HeadName& head, const Segment& segment);
  // Removes all whose keys begin with `begin`.
  absl::Status Remove(const std::string& begin, RecordBatch& batch, Change& change);

  RecordsDb& db_;
  const std::shared_ptr<SegmentRegistry> registry_;
  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::shared_ptr<ClusterCache> cache_;
  const SegmentFileOptions files_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_RECORDS_H_
