#include "server/storage/snapshot_writer.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"

namespace attic {

std::string SnapshotWriter::Count(std::string bytes) {
  checksum_.Update(bytes);
  end_.bytes += bytes.size();
  return bytes;
}

std::string SnapshotWriter::Block(std::string_view payload) {
  const SnapshotBlock block{.item = name_,
                            .payload_bytes = static_cast<uint32_t>(payload.size()),
                            .number = end_.blocks++,
                            .item_bytes = item_.size(),
                            .item_offset = offset_};
  return EncodeSnapshotBlock(identity_, block, payload);
}

void SnapshotWriter::StartItem(const SnapshotItemName& name, std::string bytes) {
  ATTIC_CHECK(bytes.size() <= kSnapshotItemBytesMax);
  name_ = name;
  item_ = std::move(bytes);
  offset_ = 0;
  started_ = false;
}

std::string SnapshotWriter::NextBlock() {
  const auto payload = std::string_view(item_).substr(offset_, kSnapshotPayloadBytesMax);
  std::string bytes = Count(Block(payload));
  offset_ += payload.size();
  started_ = true;
  return bytes;
}

std::string SnapshotWriter::End() {
  end_.checksum = checksum_.value();
  StartItem({.kind = SnapshotKind::kEnd}, EncodeSnapshotEnd(end_));
  return Block(item_);
}

}  // namespace attic
