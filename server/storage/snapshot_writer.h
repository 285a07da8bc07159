// Makes a snapshot of items, block by block.
#ifndef ATTIC_SERVER_STORAGE_SNAPSHOT_WRITER_H_
#define ATTIC_SERVER_STORAGE_SNAPSHOT_WRITER_H_

#include <cstdint>
#include <string>
#include <utility>

#include "server/storage/snapshot_format.h"

namespace attic {

// Begin, then for each item StartItem and NextBlock until ItemDone, then End; what they return, one
// behind the other, is the snapshot. Not thread-safe.
class SnapshotWriter {
 public:
  // `identity` differs from that of other snapshots.
  explicit SnapshotWriter(uint64_t identity) : identity_(identity) {}

  std::string Begin() { return Count(EncodeSnapshotHeader(identity_)); }

  void StartItem(const SnapshotItemName& name, std::string bytes);
  bool ItemDone() const { return started_ && offset_ == item_.size(); }
  std::string NextBlock();

  std::string End();

  uint64_t bytes() const { return end_.bytes; }  // returned so far

 private:
  std::string Count(std::string bytes);
  std::string Block(std::string_view payload);

  const uint64_t identity_;
  RunningChecksum checksum_;
  SnapshotEnd end_;
  SnapshotItemName name_;
  std::string item_;
  size_t offset_ = 0;
  bool started_ = false;  // an item, even an empty one, has a block
};

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SNAPSHOT_WRITER_H_
