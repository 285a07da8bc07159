// A session as a snapshot (server/storage/SNAPSHOT.md), chunk by chunk.
#ifndef ATTIC_SERVER_SESSION_SESSION_EXPORT_H_
#define ATTIC_SERVER_SESSION_SESSION_EXPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"
#include "server/session/session.h"
#include "server/storage/snapshot_writer.h"

namespace attic {

// What the session held at one watermark, whatever becomes of it meanwhile. Appends do not wait for
// it. Not thread-safe.
class SessionExport {
 public:
  // Of the positions below `position`; none: of all. `hashes` says those of the session's blocks,
  // which a truncation cuts first. UNAVAILABLE while the session is read from disk, or when that
  // failed; of a damaged session what is left of it is exported. OUT_OF_RANGE beyond the watermark.
  static absl::StatusOr<std::unique_ptr<SessionExport>> Begin(
      const std::shared_ptr<Session>& session, std::optional<int64_t> position,
      const std::function<std::vector<PrefixHash>()>& hashes);

  // Sets `chunk` to the next bytes, at most kSnapshotBlockBytesMax; false behind the last. Errors
  // as of HeadSnapshot::Attend.
  absl::StatusOr<bool> Next(std::string& chunk);

  uint64_t bytes_estimated() const { return bytes_estimated_; }  // of all chunks

 private:
  struct Head {
    std::string learnt;
    std::vector<std::shared_ptr<const Segment>> segments;  // that end at the watermark or before
    std::shared_ptr<const HeadSnapshot> snapshot;
  };
  struct Layer {
    uint32_t layer = 0;
    std::vector<Head> heads;
    int64_t rows_begin = 0;
  };
  // What is written next.
  struct Cursor {
    size_t layer = 0;
    size_t head = 0;
    size_t segment = 0;
    bool in_head = false;   // its state was written
    int64_t position = -1;  // of rows; -1: none yet
  };

  explicit SessionExport(std::shared_ptr<Session> session);

  absl::Status Take(std::optional<int64_t> position,
                    const std::function<std::vector<PrefixHash>()>& hashes);
  void Describe(std::vector<PrefixHash> hashes);
  void Estimate();
  // Starts the next item; false when there is none.
  absl::StatusOr<bool> NextItem();
  absl::StatusOr<bool> NextOfHead(const Layer& layer);
  absl::StatusOr<bool> NextRows(const Layer& layer);
  size_t row_bytes() const;  // of a position in one head

  const std::shared_ptr<Session> session_;
  SnapshotWriter writer_;
  int64_t position_ = 0;  // the watermark
  std::string description_;
  std::vector<Layer> layers_;
  uint64_t bytes_estimated_ = 0;
  bool begun_ = false, described_ = false, ended_ = false;
  Cursor cursor_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_EXPORT_H_
