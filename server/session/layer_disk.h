// What a stored layer of a durable session has on disk, and how far that is durable.
#ifndef ATTIC_SERVER_SESSION_LAYER_DISK_H_
#define ATTIC_SERVER_SESSION_LAYER_DISK_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/index/head_index.h"
#include "server/storage/durable_store.h"

namespace attic {

// Thread-safe; rows are written by one caller at a time, and so are the segments of one head.
class LayerDisk {
 public:
  LayerDisk(std::shared_ptr<DurableStore> store, uint64_t session_key, uint32_t layer,
            size_t kv_heads, std::function<void()> on_write);

  const std::shared_ptr<DurableStore>& store() const { return store_; }
  uint64_t session_key() const { return session_key_; }
  HeadName head(uint32_t kv_head) const { return {session_key_, layer_, kv_head}; }

  // Writes rows behind those of the layer. They are durable some time later.
  absl::Status AppendRows(const RowsRecord& rows);

  // Writes the segments of a head that are not on disk yet, and then forgets rows that segments of
  // all heads hold; vectors of written segments can be read from their files. `disk_segments` is
  // how many are there, and grows. Errors as of DurableStore; what was written before one counts.
  absl::Status WriteSegments(uint32_t kv_head, const HeadIndex& index, size_t& disk_segments);

  // A head has its first segments on disk, because it was recovered or forked.
  void NoteSegments(uint32_t kv_head, int64_t end_position);
  // Everything below is durable and nothing else is there: in segments as noted, and in rows behind
  // those of the head that has fewest.
  void NoteDurable(int64_t watermark);
  // Rows below it may have been dropped.
  int64_t rows_begin() const;

  // Every position below it survives the end of the process, and of the machine's power.
  int64_t durable_watermark() const;

 private:
  struct Write {
    uint64_t number;
    int64_t end_position;
  };

  const std::shared_ptr<DurableStore> store_;
  const uint64_t session_key_;
  const uint32_t layer_;
  const std::function<void()> on_write_;

  mutable Mutex mutex_;
  mutable std::deque<Write> writes_ ATTIC_GUARDED_BY(mutex_);  // not known to be durable
  mutable int64_t durable_watermark_ ATTIC_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> segments_end_ ATTIC_GUARDED_BY(mutex_);  // per kv head, on disk
  int64_t rows_begin_ ATTIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_LAYER_DISK_H_
