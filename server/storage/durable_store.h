// What a store keeps in its data directory: sessions, their segments, and the rows that no segment
// file holds yet.
//
//   DIRECTORY/LOCK          held while a process uses the directory
//   DIRECTORY/VERSION       of the layout, as text
//   DIRECTORY/DURABLE       how far the records are known to be durable
//   DIRECTORY/records/      RocksDB: sessions, references to segment files, rows, states of heads
//   DIRECTORY/segments/     one file per segment (segment_file.h), named by a number never used
//   again
//
// DIRECTORY.md says more. A write is durable once a later or the same Sync() returned OK: it
// survives kill -9 and the loss of power. Writes become durable in the order in which they were
// made; what was not durable may be lost, but only from the end: no write is there without those
// before it.
#ifndef ATTIC_SERVER_STORAGE_DURABLE_STORE_H_
#define ATTIC_SERVER_STORAGE_DURABLE_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/types.h"
#include "server/index/segment/segment.h"
#include "server/storage/cluster_cache.h"
#include "server/storage/segment_file.h"

namespace rocksdb {
class FileSystem;
}

namespace attic {

struct DurableStoreOptions {
  std::string directory;  // made if it does not exist; its parent must
  ClusterCacheOptions cache;
  SegmentFileOptions segment_files;
  // Rows kept in memory before they go from the log to a file; several times that while files are
  // being written.
  uint64_t rows_buffer_bytes = 64u << 20;
  // Everything on disk goes through it; null: the machine's own. Tests put faults here.
  std::shared_ptr<rocksdb::FileSystem> file_system;
};

// A session as it is recorded, less its tokens.
struct SessionRecord {
  uint64_t key = 0;  // chosen by CreateSession, never used again
  std::string session_id;
  Fingerprint fingerprint;
  std::vector<uint32_t> stored_layers;  // ascending
  // What the session layer keeps beside (hash chain, lease, pin), in a form of its own.
  std::string attributes;
};

// One kv head of one layer of a session.
struct HeadName {
  uint64_t session_key = 0;
  uint32_t layer = 0;
  uint32_t kv_head = 0;
  auto operator<=>(const HeadName&) const = default;
};

// Rows of one layer that no segment file holds in every head: as AppendBatch.
struct RowsRecord {
  int64_t begin_position = 0;
  size_t count = 0;
  std::span<const std::byte> keys;      // (count, kv_heads, head_dim)
  std::span<const std::byte> values;    // (count, kv_heads, value_dim)
  std::span<const float> query_sample;  // (n, q_heads, head_dim)
};

// A segment of a head: the index'th, and the number of its file.
struct SegmentReference {
  uint64_t file = 0;
  int64_t begin_position = 0;
  int64_t tokens = 0;
};

// What a layer holds after a truncation, or a new fork from the start.
struct LayerState {
  uint32_t layer = 0;
  std::vector<std::vector<SegmentReference>> segments;  // per kv head, in order of position
  std::vector<RowsRecord> rows;                         // consecutive, up to the watermark
};

// What a truncation leaves of a layer.
struct LayerCut {
  uint32_t layer = 0;
  int64_t position = 0;               // nothing is held from here on
  std::vector<size_t> kept_segments;  // per kv head: so many of the first references stay
  // Rows that were dropped because segments held them which are cut now: consecutive, before those
  // that are still recorded.
  std::vector<RowsRecord> rows;
};

// Thread-safe; calls about one session and layer that change something are made one at a time by
// the caller. A call that fails changed nothing, or may have where it says "durable when it
// returns": then it did all, and the caller repeats it, or gives the session up. Errors:
// RESOURCE_EXHAUSTED when the disk is full (writes succeed again when there is room, without
// reopening), UNAVAILABLE when it fails, DATA_LOSS when what was read is damaged; all name the file
// where one is known.
class DurableStore {
 public:
  //   FAILED_PRECONDITION: another process holds the directory, or it is of another version.
  static absl::StatusOr<std::unique_ptr<DurableStore>> Open(const DurableStoreOptions& options);
  virtual ~DurableStore() = default;

  // --- Sessions. Durable when they return.

  // Sets record.key.
  virtual absl::Status CreateSession(SessionRecord& record, std::span<const LayerState> layers) = 0;
  virtual absl::Status UpdateSession(const SessionRecord& record) = 0;
  // Forgets the session; segment files that no other session refers to are deleted.
  virtual absl::Status RemoveSession(uint64_t session_key) = 0;
  virtual absl::StatusOr<std::vector<SessionRecord>> Sessions() = 0;

  // --- Rows

  // Adds rows behind those of the layer. Not durable yet; returns the number of the write.
  virtual absl::StatusOr<uint64_t> AppendRows(uint64_t session_key, uint32_t layer,
                                              const RowsRecord& rows) = 0;
  // Makes every write made so far durable. Calls at the same time share one sync.
  virtual absl::Status Sync() = 0;
  // Writes up to this number are durable.
  virtual uint64_t durable_write() const = 0;

  // Calls visit with the rows of a layer from `begin` on, in order of position, pieces as they were
  // appended but without what lies before `begin`; the query sample is that of the whole piece.
  // Stops at a gap. Arrays are valid during the visit and, but for the sample, not aligned.
  virtual absl::Status ReadRows(uint64_t session_key, uint32_t layer, int64_t begin,
                                const std::function<absl::Status(const RowsRecord&)>& visit) = 0;

  // --- Segments

  // Writes the next segment of a head to a file and records it. Not durable yet, and the rows it
  // holds are kept until DropRows. OUT_OF_RANGE if it does not begin where the last one ends.
  // `source`, which may be null, reads its vectors.
  virtual absl::StatusOr<SegmentReference> AddSegment(
      const HeadName& head, const Segment& segment, const VectorArrays& vectors,
      std::shared_ptr<const VectorSource>* source) = 0;
  // Writes a segment to a file that nothing refers to: it goes when the source does, or when the
  // directory is opened next. While the source is held, layers may refer to it as `reference`,
  // which may be null, says.
  virtual absl::StatusOr<std::shared_ptr<const VectorSource>> SpillSegment(
      const Segment& segment, const VectorArrays& vectors,
      SegmentReference* reference = nullptr) = 0;
  // In order of position.
  virtual absl::StatusOr<std::vector<SegmentReference>> Segments(const HeadName& head) = 0;
  virtual absl::StatusOr<SegmentFile> OpenSegment(const SegmentReference& reference) = 0;
  // Forgets rows of a layer below `position`: recorded segments of every head hold them.
  virtual absl::Status DropRows(uint64_t session_key, uint32_t layer, int64_t position) = 0;

  // Replaces what the layers of a session hold, all or nothing. Durable when it returns. Segments
  // may be those of any session; rows that the layer holds already are not written again.
  virtual absl::Status ReplaceLayers(uint64_t session_key, std::span<const LayerState> layers) = 0;

  // Cuts layers of a session, all or none. Rows from a cut's position on are forgotten, also those
  // of a record that straddles it. Durable when it returns.
  virtual absl::Status TruncateLayers(uint64_t session_key, std::span<const LayerCut> cuts) = 0;

  // --- What a head has learnt, in a form of its own. Not durable by itself.
  virtual absl::Status PutHeadState(const HeadName& head, const std::string& state) = 0;
  // Empty when there is none.
  virtual absl::StatusOr<std::string> HeadState(const HeadName& head) = 0;

  virtual std::vector<DamageReport> damage() const = 0;
  // Of clusters read from segment files; what is over it goes soon.
  virtual void SetCacheBytes(uint64_t bytes_max) = 0;
  virtual ClusterCacheUse cache_use() const = 0;
  virtual uint64_t disk_bytes() const = 0;  // of segment files
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_DURABLE_STORE_H_
