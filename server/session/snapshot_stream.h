// A session on its way out of a store, or into one, as the bytes of a snapshot
// (server/storage/SNAPSHOT.md).
#ifndef ATTIC_SERVER_SESSION_SNAPSHOT_STREAM_H_
#define ATTIC_SERVER_SESSION_SNAPSHOT_STREAM_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "api/types.h"

namespace attic {

// Asked once what session is to be made of a snapshot, by the thread that writes it; an error ends
// the import.
using ImportAdmission = std::function<absl::Status(const OpenSessionRequest& request)>;

// The bytes of a snapshot, in order. Not thread-safe; must not outlive its store.
class SnapshotSource {
 public:
  virtual ~SnapshotSource() = default;
  // Sets `chunk` to the next bytes, at most 1 MiB; false behind the last. Errors as of Attend.
  virtual absl::StatusOr<bool> Next(std::string& chunk) = 0;
  virtual uint64_t bytes_estimated() const = 0;  // of all chunks
};

// Takes the bytes of a snapshot, in pieces of any size. Nothing is seen of the session before
// Finish returned. Not thread-safe; must not outlive its store.
class SnapshotSink {
 public:
  virtual ~SnapshotSink() = default;
  // After an error every call returns it; see SessionImport::Write.
  virtual absl::Status Write(std::string_view bytes) = 0;
  // There are no more bytes. Besides errors of Write, ALREADY_EXISTS when the id was taken
  // meanwhile.
  virtual absl::StatusOr<SessionDescription> Finish() = 0;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SNAPSHOT_STREAM_H_
