// What the items of a snapshot say (server/storage/SNAPSHOT.md), but for segments and what heads
// have learnt, which have forms of their own.
#ifndef ATTIC_SERVER_SESSION_SNAPSHOT_ITEMS_H_
#define ATTIC_SERVER_SESSION_SNAPSHOT_ITEMS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/session/session_attributes.h"
#include "server/storage/durable_store.h"

namespace attic {

struct SnapshotSession {
  SessionRecord record;  // without key; attributes are those below
  RecordedAttributes recorded;
  int64_t position = 0;  // every layer holds the positions below it
};

std::string EncodeSnapshotSession(const SnapshotSession& session);
// DATA_LOSS when the bytes make no sense.
absl::StatusOr<SnapshotSession> DecodeSnapshotSession(const std::string& bytes);

// What comes before the segments of a head.
struct SnapshotHead {
  uint64_t segments = 0;
  std::string learnt;  // HeadIndex::LearntState
};
std::string EncodeSnapshotHead(const SnapshotHead& head);
// DATA_LOSS when the bytes make no sense.
absl::StatusOr<SnapshotHead> DecodeSnapshotHead(const std::string& bytes);

std::string EncodeSnapshotRows(const RowsRecord& rows);
// Borrows from `bytes`; there is no query sample. DATA_LOSS when the bytes make no sense.
absl::StatusOr<RowsRecord> DecodeSnapshotRows(const std::string& bytes);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SNAPSHOT_ITEMS_H_
