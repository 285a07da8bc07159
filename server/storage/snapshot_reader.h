// Takes a snapshot apart as its bytes come.
#ifndef ATTIC_SERVER_STORAGE_SNAPSHOT_READER_H_
#define ATTIC_SERVER_STORAGE_SNAPSHOT_READER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/storage/snapshot_format.h"

namespace attic {

// Not thread-safe. What an item says is not trusted by its checksums: whoever wrote the snapshot
// may have written anything.
class SnapshotReader {
 public:
  using Reserve = std::function<absl::Status(uint64_t item_bytes)>;
  using Visit = std::function<absl::Status(const SnapshotItemName& name, std::string item)>;

  // Calls `reserve` before an item is gathered, and `visit` when it is whole; errors of either end
  // the reading.
  SnapshotReader(Reserve reserve, Visit visit)
      : reserve_(std::move(reserve)), visit_(std::move(visit)) {}

  // The next bytes, as many as there are. After an error every call returns it.
  //   DATA_LOSS: damaged; FAILED_PRECONDITION: of another version.
  absl::Status Read(std::string_view bytes);
  // There are no more bytes. DATA_LOSS when they were not all of a snapshot.
  absl::Status Finish();

 private:
  absl::Status ReadAll(std::string_view bytes);
  // Takes what is complete off the front of `bytes`; false when that is nothing.
  absl::StatusOr<bool> TakePart(std::string_view& bytes);
  absl::Status TakeBlock(const SnapshotBlock& block, std::string_view payload);
  absl::Status TakeEnd(std::string_view payload);

  const Reserve reserve_;
  const Visit visit_;
  absl::Status error_;
  std::string pending_;  // the beginning of a header or block
  bool has_header_ = false;
  bool ended_ = false;
  uint64_t identity_ = 0;
  RunningChecksum checksum_;
  SnapshotEnd counted_;
  SnapshotItemName name_;
  std::string item_;
  uint64_t item_bytes_ = 0;
  bool in_item_ = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SNAPSHOT_READER_H_
